"""wgtune beside PyTorch + PEFT on the same weights and tokens, taking turns in one run; prints medians and ratios.

    cargo build --release
    pip install torch transformers peft
    python benches/side_by_side.py --wgtune target/release/wgtune [--rounds 3] [--json]
    python benches/side_by_side.py --wgtune target/release/wgtune --memory [--json]

A model of SmolLM2-135M's shape with seeded random weights, f32 on the CPU (see pytorch.py): a LoRA training step of rank 8 on
q_proj and v_proj at batch 1 x 256 with its peak resident memory, greedy decoding after a prompt of 8, and a prefill of 256. Then,
for wgtune alone, a full training step of a model with 4 layers, width 256, 4 heads, vocabulary 4096 at batch 4 x 128, on the CPU and,
with --device, on another device.

With --memory, the peak resident memory of that LoRA step instead, at batch 1 x 256, 1 x 1024 and 4 x 1024, with and without
gradient checkpointing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
STEPS, WARM_UP = 8, 2


def pytorch(part, threads, *options):
    command = [sys.executable, HERE / "pytorch.py", "--json", "--only", part, "--threads", str(threads)]
    command += options or ["--steps", str(STEPS)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[part]


def run(command):
    """Standard output, and the peak resident memory in bytes."""
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        raise SystemExit(f"{command}\n{errors}")
    return output, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def steps(wgtune, model, method, device, batch_size, length, count=STEPS + WARM_UP, options=()):
    """Median seconds of a training step, and the peak resident memory."""
    with tempfile.TemporaryDirectory() as out:
        command = [wgtune, "sft", "--model", model, "--data", model / "batch.jsonl", "--out", out, "--method", method]
        command += ["--steps", count, "--batch-size", batch_size, "--max-length", length, "--validation", 0]
        command += ["--save-every", 0, "--no-shuffle", "--learning-rate", 1e-4, "--device", device, *options]
        command += ["--targets", "q_proj,v_proj"] if method == "lora" else []
        _, memory = run(command)
        metrics = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    times = [batch_size * length / line["tokens_per_second"] for line in metrics[WARM_UP:]]
    return {"seconds_per_step": statistics.median(times), "peak_memory_bytes": memory}


def generation(wgtune, model):
    """Tokens a second of prefill and of decoding, each the median of warm runs."""
    command = [wgtune, "bench", "--model", model, "--filter", "prefill step,decode step", "--tokens", 256, "--seconds", 2]
    output, _ = run(command + ["--json", "--device", "cpu"])
    return {result["name"]: result["tokens_per_second"] for result in json.loads(output)["results"]}


def small_model(directory):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4, eos_token_id=0
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    rows = torch.randint(0, 4096, (4, 128), generator=torch.Generator().manual_seed(0)).tolist()
    lines = [json.dumps({"input_ids": row, "labels": row}) for row in rows]
    (directory / "batch.jsonl").write_text("\n".join(lines) + "\n")


def memory(wgtune, model, threads):
    """Peak resident bytes of a LoRA step by batch and by whether blocks are recomputed."""
    peaks = {}
    for batch_size, length in [(1, 256), (1, 1024), (4, 1024)]:
        for checkpointing in [False, True]:
            shape = ["--batch-size", str(batch_size), "--length", str(length), "--steps", "1", "--warm-up", "1"]
            theirs = pytorch("lora", threads, *shape, *["--gradient-checkpointing"] * checkpointing)["peak_memory_bytes"]
            ours = steps(wgtune, model, "lora", "cpu", batch_size, length, 3, ["--checkpoint-blocks"] * checkpointing)["peak_memory_bytes"]
            name = f"{batch_size} x {length}{', checkpointed' * checkpointing}"
            peaks[name] = {"wgtune": ours, "pytorch": theirs, "wgtune / pytorch": ours / theirs}
    return peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune", type=Path, default=Path("target/release/wgtune"), help="the program")
    parser.add_argument("--rounds", type=int, default=3, help="how often both take turns (3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that PyTorch may use (all)")
    parser.add_argument("--device", help="also run the small model on this device of wgtune")
    parser.add_argument("--memory", action="store_true", help="measure peak memory over batches instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = {}

    def note(name, value):
        figures.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        subprocess.run([sys.executable, HERE / "pytorch.py", "--write-model", large], check=True, capture_output=True)
        if arguments.memory:
            peaks = memory(arguments.wgtune, large, arguments.threads)
            if arguments.json:
                print(json.dumps(peaks, indent=2))
                return
            for name, peak in peaks.items():
                print(f"{name:<24} wgtune {peak['wgtune'] / 1e9:.2f} GB, pytorch {peak['pytorch'] / 1e9:.2f} GB, "
                      f"wgtune / pytorch {peak['wgtune / pytorch']:.2f}")
            return
        small_model(small)
        for _ in range(arguments.rounds):
            theirs, ours = pytorch("lora", arguments.threads), steps(arguments.wgtune, large, "lora", "cpu", 1, 256)
            for key in ["seconds_per_step", "peak_memory_bytes"]:
                note(f"lora {key} pytorch", theirs[key])
                note(f"lora {key} wgtune", ours[key])
            ours = generation(arguments.wgtune, large)
            for part in ["decode", "prefill"]:
                note(f"{part} tokens_per_second pytorch", pytorch(part, arguments.threads)["tokens_per_second"])
                note(f"{part} tokens_per_second wgtune", ours[part])
            for device in ["cpu"] + ([arguments.device] if arguments.device else []):
                step = steps(arguments.wgtune, small, "full", device, 4, 128)
                note(f"small model, full step, {device}: seconds wgtune", step["seconds_per_step"])
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratios = {
        name.removesuffix(" wgtune"): medians[name] / medians[name.replace("wgtune", "pytorch")]
        for name in medians
        if name.endswith(" wgtune") and name.replace("wgtune", "pytorch") in medians
    }
    if arguments.json:
        print(json.dumps({"medians": medians, "wgtune / pytorch": ratios, "rounds": arguments.rounds}, indent=2))
        return
    for name, value in medians.items():
        print(f"{name:<55} {value:.4g}")
    for name, value in ratios.items():
        print(f"{name:<40} wgtune / pytorch  {value:.3f}")


if __name__ == "__main__":
    main()
