"""One phase of `wgtune ppo` (answers drawn, scored and learnt from) beside the same in PyTorch, transformers and PEFT.

    cargo build --release
    pip install torch transformers peft
    python benches/ppo.py --wgtune target/release/wgtune --model DIR --prompts prompts.jsonl [--rounds 3] [--json FILE]

Both take turns, each in a process of its own, in f32 on the CPU. Policy and critic are LoRA of rank 8 on all linear
layers, the critic with a head that says what a token is worth; the reference is the model without an adapter. All three
share one copy of the model's weights. Every phase asks the same prompts, the first --answers of the file; a regular
expression gives the reward. Then come log-probabilities of policy and reference, values, generalised advantages, and
--phase-epochs passes of clipped policy and value losses, --batch-size answers an update. `taskset -c 0,1 python
benches/ppo.py ...` holds both to two cores.

PyTorch draws with `generate` and its KV cache, and never an end token, so that all answers have --max-new-tokens.
wgtune's may end; where they are shorter, it has less to do, and a line says so. The split of PyTorch's phase is timed
inside it: rollout is `generate` alone, scoring all that is between it and the first update. Its first phase, in which
it warms up, does not count. wgtune's phase is what a run of --phases takes longer than one of a single phase, over the
phases between, so that loading and writing do not count. Peak memory is of the whole process, loading included; what
PyTorch's had once its modules were imported, before the model, is given too.

Measure on an otherwise idle machine: PyTorch's threads wait for each other, and lose far more to other work than its
share. With a tiny model it may be faster with --threads 1. --regex has to be found in some answer of the first phase:
without any reward nothing is learnt, and wgtune says so and stops.
"""

import argparse
import copy
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATE, CRITIC_RATE, KL, LAMBDA, CLIP, VALUE_CLIP, VALUE_WEIGHT = 1e-4, 10.0, 0.05, 0.95, 0.2, 0.2, 0.1
PARTS = ["rollout", "scoring", "training"]


def run(command):
    """Standard output, seconds of wall-clock time and the peak resident memory in bytes."""
    with tempfile.TemporaryFile("w+") as errors:
        begun = time.perf_counter()
        child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True)
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        if status != 0:
            errors.seek(0)
            raise SystemExit(f"{command}\n{errors.read()}")
    return output, seconds, resident(usage)


def resident(usage):
    """Bytes of the peak. The kernel counts in KiB, macOS in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def of_wgtune(options, prompts):
    updates = options.phase_epochs * options.answers // options.batch_size

    def phases(count):
        """The run's seconds and peak memory, its report, and its updates."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            command = [options.wgtune, "ppo", "--model", options.model, "--data", prompts, "--out", out, "--json"]
            command += ["--rollouts", options.answers, "--together", options.together, "--steps", count * updates]
            command += ["--batch-size", options.batch_size, "--phase-epochs", options.phase_epochs, "--quiet"]
            command += ["--max-new-tokens", options.max_new_tokens, "--reward-rule", f"regex={options.regex}"]
            command += ["--targets", "all-linear", "--rank", 8, "--alpha", 16, "--critic", "own", "--clip", 1]
            command += ["--learning-rate", RATE, "--critic-rate", CRITIC_RATE, "--schedule", "constant"]
            command += ["--kl-coef", KL, "--kl-estimator", "k1", "--lambda", LAMBDA, "--cliprange", CLIP]
            command += ["--cliprange-value", VALUE_CLIP, "--vf-coef", VALUE_WEIGHT, "--validation", 0]
            command += ["--save-every", 0, "--save-minutes", 0, "--no-tensorboard", "--device", "cpu"]
            output, seconds, memory = run(command)
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return seconds, memory, json.loads(output), lines

    start, *_ = phases(1)
    seconds, memory, report, lines = phases(options.phases)
    firsts = lines[::updates]
    length = statistics.mean(line["completions/mean_length"] for line in firsts)
    result = {
        "seconds_per_phase": (seconds - start) / (options.phases - 1),
        "peak_memory_bytes": memory,
        "answer_tokens": length,
        # Every pass over a phase's answers counts all of their tokens, and the prompts'.
        "prompt_tokens": lines[-1]["num_tokens"] / (len(lines) * options.batch_size) - length,
        "trained_parameters": report["trained_parameters"],
    }
    # A phase's first update tells how long its answers took; what is left of a phase is training.
    if all(f"time/{part}" in line for line in firsts for part in PARTS[:2]):
        for part in PARTS[:2]:
            result[part] = statistics.mean(line[f"time/{part}"] for line in firsts[1:])
        result["training"] = result["seconds_per_phase"] - result["rollout"] - result["scoring"]
    return result


def of_pytorch(options, prompts):
    command = [sys.executable, __file__, "--reference", "--model", options.model, "--prompts", prompts]
    command += ["--regex", options.regex, "--threads", options.threads, *["--merge"] * options.merge]
    for name in ["answers", "batch_size", "phase_epochs", "max_new_tokens", "together", "phases"]:
        command += [f"--{name.replace('_', '-')}", getattr(options, name)]
    output, _, memory = run(command)
    report = json.loads(output)
    parts = {part: statistics.mean(phase[part] for phase in report["phases"][1:]) for part in PARTS}
    lengths = {"answer_tokens": options.max_new_tokens, "prompt_tokens": report["prompt_tokens"]}
    kept = {key: report[key] for key in ["imported_memory_bytes", "trained_parameters", "versions"]}
    return {"seconds_per_phase": sum(parts.values()), "peak_memory_bytes": memory} | parts | lengths | kept


def reference(options):
    """PyTorch's side: prints what its phases took."""
    import peft
    import torch
    import transformers
    from torch.nn import functional

    imported = resident(resource.getrusage(resource.RUSAGE_SELF))
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    load = transformers.AutoModelForCausalLM.from_pretrained
    base = load(options.model, dtype=torch.float32, attn_implementation="sdpa").requires_grad_(False).eval()

    # Modules of its own over the same tensors: only the adapters are there twice.
    tensors = {id(tensor): tensor for tensor in [*base.parameters(), *base.buffers()]}
    trunk = copy.deepcopy(base.base_model, tensors)
    lora = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    policy = peft.get_peft_model(base, peft.LoraConfig(**lora, task_type="CAUSAL_LM")).eval()
    critic = peft.get_peft_model(trunk, peft.LoraConfig(**lora)).eval()
    head = torch.zeros(1, base.config.hidden_size, requires_grad=True)
    of_policy = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    of_critic = [parameter for parameter in critic.parameters() if parameter.requires_grad] + [head]
    groups = [{"params": of_policy}, {"params": of_critic, "lr": CRITIC_RATE * RATE}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=0.0)

    # No end token is known to `generate`, which so checks for none, and none can be drawn.
    named = [tokenizer.eos_token_id, base.config.eos_token_id, base.generation_config.eos_token_id]
    ends = sorted({end for ends in named for end in (ends if isinstance(ends, list) else [ends]) if end is not None})
    new = options.max_new_tokens
    base.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=new, pad_token_id=0
    )

    def without_ends(_, scores):
        scores[:, ends] = -torch.inf
        return scores

    rows = [json.loads(line)["prompt"] for line in options.prompts.read_text().splitlines()]
    prompts = [tokenizer(row)["input_ids"] for row in rows]

    def padded(rows):
        """What a model is given; texts end together, so that all answers stand in the last columns."""
        longest = max(map(len, rows))
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}

    @torch.inference_mode()
    def drawn(asked):
        if options.merge:
            policy.merge_adapter()
        answers = []
        for at in range(0, len(asked), options.together):
            given = padded([prompts[prompt] for prompt in asked[at : at + options.together]])
            del given["position_ids"]  # `generate` makes its own
            found = policy.generate(**given, logits_processor=[without_ends])[:, given["input_ids"].shape[1] :]
            assert found.shape[1] == new, f"answers of {found.shape[1]} tokens"
            answers += found.tolist()
        if options.merge:
            policy.unmerge_adapter()
        return answers

    def log_probs(given):
        logits = policy(**given, use_cache=False, logits_to_keep=new + 1).logits[:, :-1]
        targets = given["input_ids"][:, -new:]
        return -functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)

    def values_of(given):
        hidden = critic(**given, use_cache=False).last_hidden_state[:, -new - 1 : -1]
        return functional.linear(hidden, head).squeeze(-1)

    @torch.inference_mode()
    def measured(texts):
        old, of_reference, values = [], [], []
        for at in range(0, len(texts), options.batch_size):
            given = padded(texts[at : at + options.batch_size])
            old.append(log_probs(given))
            with policy.disable_adapter():
                of_reference.append(log_probs(given))
            values.append(values_of(given))
        return torch.cat(old), torch.cat(of_reference), torch.cat(values)

    def estimated(rewards, values):
        """Advantages, of mean 0 and deviation 1, and returns."""
        advantages, following, next_value = torch.empty_like(values), 0.0, 0.0
        for at in reversed(range(new)):
            following = rewards[:, at] + next_value - values[:, at] + LAMBDA * following
            advantages[:, at], next_value = following, values[:, at]
        returns = advantages + values
        return (advantages - advantages.mean()) / (advantages.var() + 1e-8).sqrt(), returns

    def learn(given, old, advantages, values, returns):
        # One after the other, as neither loss needs the other's graph.
        ratios = (log_probs(given) - old).exp()
        (-torch.minimum(ratios * advantages, ratios.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()).backward()
        found = values_of(given)
        clipped = values + (found - values).clamp(-VALUE_CLIP, VALUE_CLIP)
        worst = torch.maximum((found - returns).square(), (clipped - returns).square())
        (0.5 * VALUE_WEIGHT * worst.mean()).backward()
        torch.nn.utils.clip_grad_norm_(of_policy + of_critic, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    phases, shuffled = [], random.Random(0)
    for _ in range(options.phases):
        begun = time.perf_counter()
        asked = shuffled.sample(range(len(prompts)), len(prompts))
        answers = drawn(asked)
        drawn_at = time.perf_counter()
        said = tokenizer.batch_decode(answers, skip_special_tokens=True)
        scores = torch.tensor([float(re.search(options.regex, text) is not None) for text in said])
        texts = [prompts[prompt] + answer for prompt, answer in zip(asked, answers)]
        # What inference mode makes cannot be in a graph; copies can.
        old, of_reference, values = (numbers.clone() for numbers in measured(texts))
        rewards = -KL * (old - of_reference)
        rewards[:, -1] += scores
        advantages, returns = estimated(rewards, values)
        scored_at = time.perf_counter()
        for _ in range(options.phase_epochs):
            order = torch.randperm(len(texts))
            for places in order.split(options.batch_size):
                given = padded([texts[place] for place in places.tolist()])
                learn(given, *(numbers[places] for numbers in [old, advantages, values, returns]))
        seconds = [drawn_at - begun, scored_at - drawn_at, time.perf_counter() - scored_at]
        phases.append(dict(zip(PARTS, seconds)) | {"reward": scores.mean().item()})
    report = {
        "phases": phases,
        "imported_memory_bytes": imported,
        "prompt_tokens": statistics.mean(map(len, prompts)),
        "trained_parameters": sum(parameter.numel() for parameter in of_policy),
        "versions": {module.__name__: module.__version__.split("+")[0] for module in [torch, transformers, peft]},
    }
    print(json.dumps(report))


def number(value):
    return f"{value:.0f}" if value >= 1e5 else f"{value:.6g}"


def available():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune", type=Path, default=Path("target/release/wgtune"), help="the program")
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face model directory")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON Lines with `prompt`, a text")
    parser.add_argument("--answers", type=int, default=32, help="of a phase, each to a prompt of its own (32)")
    parser.add_argument("--batch-size", type=int, default=8, help="answers of an update (8)")
    parser.add_argument("--phase-epochs", type=int, default=4, help="how often a phase's answers are learnt from (4)")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="tokens of an answer (64)")
    parser.add_argument("--together", type=int, default=32, help="answers that are drawn together (32)")
    parser.add_argument("--regex", default="the", help="the reward is 1 where it is found in an answer (the)")
    parser.add_argument("--phases", type=int, default=3, help="phases of a run, of which the first does not count (3)")
    parser.add_argument("--rounds", type=int, default=3, help="how often both take turns (3)")
    parser.add_argument("--threads", type=int, default=available(), help="threads that PyTorch may use (all)")
    parser.add_argument("--merge", action="store_true", help="let PyTorch draw with the adapter merged into weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        return reference(options)
    if options.phases < 2 or options.rounds < 1 or options.answers % options.batch_size != 0:
        parser.error("expected 2 phases or more, 1 round or more, and --answers that are whole batches")
    rows = [line for line in options.prompts.read_text().splitlines() if line.strip()][: options.answers]
    if len(rows) < options.answers:
        parser.error(f"{len(rows)} prompts; expected --answers of them, {options.answers}")

    load = os.getloadavg()[0]
    rounds = {"wgtune": [], "pytorch": []}
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": json.loads(row)["prompt"]}) + "\n" for row in rows))
        for _ in range(options.rounds):
            for name, side in [("wgtune", of_wgtune), ("pytorch", of_pytorch)]:
                rounds[name].append(side(options, prompts))
    sides = {
        name: {
            key: statistics.median(result[key] for result in results)
            for key, value in results[0].items()
            if isinstance(value, (int, float))
        }
        for name, results in rounds.items()
    }
    ours, theirs = sides["wgtune"], sides["pytorch"]
    measured = ["seconds_per_phase", *PARTS, "peak_memory_bytes"]
    ratios = {key: ours[key] / theirs[key] for key in measured if key in ours}

    updates = options.phase_epochs * options.answers // options.batch_size
    print(f"a phase of {options.answers} answers and {updates} updates, medians of {options.rounds}")
    print(f"{'':<24}{'wgtune':>10}{'pytorch':>10}{'wgtune / pytorch':>20}".rstrip())
    for key in measured + ["imported_memory_bytes", "answer_tokens", "prompt_tokens", "trained_parameters"]:
        scale, unit = (2**20, " (MiB)") if key.endswith("_bytes") else (1, "")
        name = key.removesuffix("_bytes").replace("_", " ") + unit
        cells = [number(side[key] / scale) if key in side else "-" for side in (ours, theirs)]
        ratio = f"{ratios[key]:.3f}" if key in ratios else ""
        print(f"{name:<24}{cells[0]:>10}{cells[1]:>10}{ratio:>20}".rstrip())
    for key in ["answer_tokens", "prompt_tokens", "trained_parameters"]:
        if abs(ours[key] / theirs[key] - 1) > 0.01:
            print(f"not the same work: {key.replace('_', ' ')} {ours[key]:.6g} and {theirs[key]:.6g}")
    if load > 0.5:
        print(f"the machine was not idle: a load of {load:.1f} before the first round")
    if options.json:
        names = [name for name in vars(options) if name not in ["reference", "json"]]
        settings = {name: getattr(options, name) for name in names}
        report = {"settings": settings, "medians": sides, "wgtune / pytorch": ratios, "rounds": rounds}
        report["load_before"] = load
        options.json.write_text(json.dumps(report, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
