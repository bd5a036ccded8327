"""What PyTorch, transformers and PEFT take for the work that wgtune is compared on.

    pip install torch transformers peft
    python benches/pytorch.py --threads 2 [--only lora|decode|prefill] [--json]
    python benches/pytorch.py --only lora --batch-size 4 --length 1024 --gradient-checkpointing
    python benches/pytorch.py --write-model DIR

The model has SmolLM2-135M's shape and seeded random weights, in f32 on the CPU. Every figure is a median after
warm-up:

- lora: one training step (forward, backward, AdamW) of rank 8 on q_proj and v_proj, batch 1 x 256 tokens unless told
  otherwise, and the process's peak resident memory up to the end of it;
- decode: one greedy token with the KV cache, over 64 tokens after a prompt of 8;
- prefill: one forward pass of 256 tokens that fills the cache and yields the last position's logits.

`--write-model` writes the same weights as a Hugging Face directory, with four rows of 1024 tokens beside them, as
`input_ids` and `labels` in batch.jsonl, and measures nothing.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import peft
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 0
LENGTH, PROMPT, NEW_TOKENS = 256, 8, 64


def model():
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def random_ids(length, rows=1):
    """[rows, length], the same in every part."""
    return torch.randint(0, 49152, (rows, length), generator=torch.Generator().manual_seed(SEED))


def seconds(work, warm_up, steps):
    """The wall-clock time of each call of `work` after the warm-up."""
    times = []
    for _ in range(warm_up + steps):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times[warm_up:]


def peak_memory():
    """Bytes. The kernel counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def lora(arguments):
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    base = model()
    if arguments.gradient_checkpointing:
        base.gradient_checkpointing_enable()
        base.enable_input_require_grads()
    tuned = peft.get_peft_model(base, config).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-4)
    ids = random_ids(arguments.length, arguments.batch_size)

    def step():
        optimizer.zero_grad()
        tuned(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    times = seconds(step, arguments.warm_up, arguments.steps)
    return {"seconds_per_step": statistics.median(times), "fastest": min(times), "peak_memory_bytes": peak_memory()}


@torch.inference_mode()
def decode(arguments):
    plain = model().eval()
    state = plain(input_ids=random_ids(PROMPT), use_cache=True, logits_to_keep=1)

    def next_token():
        nonlocal state
        token = state.logits[:, -1].argmax(-1, keepdim=True)
        state = plain(input_ids=token, past_key_values=state.past_key_values, use_cache=True)

    times = seconds(next_token, arguments.warm_up, NEW_TOKENS)
    return {"tokens_per_second": 1 / statistics.median(times), "new_tokens": NEW_TOKENS}


@torch.inference_mode()
def prefill(arguments):
    plain = model().eval()
    ids = random_ids(LENGTH)
    times = seconds(lambda: plain(input_ids=ids, use_cache=True, logits_to_keep=1), arguments.warm_up, arguments.steps)
    return {"tokens_per_second": LENGTH / statistics.median(times), "seconds": statistics.median(times)}


PARTS = {"lora": lora, "decode": decode, "prefill": prefill}  # lora first: its peak memory is the process's


def write_model(directory):
    model().save_pretrained(directory)
    rows = random_ids(1024, 4).tolist()
    lines = [json.dumps({"input_ids": row, "labels": row}) for row in rows]
    (directory / "batch.jsonl").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads that PyTorch may use (2)")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of lora and prefill (10)")
    parser.add_argument("--warm-up", type=int, default=2, help="unmeasured steps or tokens before them (2)")
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a training batch (1)")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of a row of it (256)")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="recompute blocks in the backward pass of lora")
    parser.add_argument("--only", choices=PARTS, help="measure one part, in a process of its own")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write-model", type=Path, metavar="DIR", help="write the model and the batch, then stop")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    if arguments.write_model:
        return write_model(arguments.write_model)

    chosen = [arguments.only] if arguments.only else PARTS
    report = {
        "versions": {module.__name__: module.__version__.split("+")[0] for module in [torch, transformers, peft]},
        "threads": arguments.threads,
    } | {part: PARTS[part](arguments) for part in chosen}
    if arguments.json:
        print(json.dumps(report))
        return
    for part in chosen:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in report[part].items())
        print(f"{part}: {figures}")


if __name__ == "__main__":
    main()
