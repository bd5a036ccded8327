"""Resident memory of `wgtune sft` with its default options on rows of mixed lengths, beside plain PEFT on the same rows.

    cargo build --release
    pip install torch transformers peft
    python benches/memory.py --wgtune target/release/wgtune --model DIR --data alpaca.jsonl [--steps 200] [--reference-steps 40] [--json]

Both train LoRA on the CPU in f32, 4 rows a batch, padded to the longest of the batch. Resident memory is what the system says of
the process, looked at four times a second; it is given at its peak, and at its largest in the steps up to and after number 20.
PEFT's rows are shuffled too, in an order of its own; fewer steps can only make its peak smaller.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WARM_UP = 20


def resident(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return 1024 * int(fields["VmRSS"].split()[0]) if "VmRSS" in fields else None


def watch(command, step):
    """(step, resident bytes) of a child over its life, and its standard output; `step` says how many it has done."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True)
        output = []
        reader = threading.Thread(target=lambda: output.extend(child.stdout))
        reader.start()
        seen = []
        while child.poll() is None:
            seen.append((step(output), resident(child.pid) or 0))
            time.sleep(0.25)
        reader.join()
        if child.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{command}\n{errors.read()}")
    return seen, output


def of_wgtune(options):
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "out" / "metrics.jsonl"
        command = [options.wgtune, "sft", "--model", options.model, "--data", *options.data, "--out", Path(folder) / "out"]
        command += ["--steps", options.steps, "--device", "cpu", "--json"]
        seen, output = watch(command, lambda _: len(metrics.read_bytes().splitlines()) if metrics.exists() else 0)
    report = json.loads("".join(output))
    return seen, {key: value for key, value in report.items() if key.startswith("peak")}


def of_peft(options):
    command = [sys.executable, __file__, "--reference", "--model", options.model, "--steps", options.reference_steps]
    command += ["--data", *options.data]
    seen, _ = watch(command, len)
    return seen, {}


def reference(options):
    """Plain PEFT; prints a line a step."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=options.targets, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    rows = []
    for row in (json.loads(line) for path in options.data for line in path.read_text().splitlines()):
        user = {"role": "user", "content": "\n".join(text for text in (row["instruction"], row["input"]) if text)}
        messages = [user, {"role": "assistant", "content": row["output"]}]
        rows.append(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)[:1024])
    random.Random(0).shuffle(rows)
    for step in range(options.steps):
        batch = [rows[(4 * step + i) % len(rows)] for i in range(4)]
        longest = max(map(len, batch))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(step, loss.item(), flush=True)


def summary(seen):
    """Bytes at the peak, and the largest of the steps up to number 20 and of those after it."""
    largest = lambda wanted: max((size for step, size in seen if wanted(step)), default=0)
    return {
        "peak_resident_bytes": largest(lambda step: True),
        "up_to_step_20_bytes": largest(lambda step: step <= WARM_UP),
        "after_step_20_bytes": largest(lambda step: step > WARM_UP),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--reference-steps", type=int, default=40)
    parser.add_argument("--targets", default="all-linear")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        return reference(options)
    results = {}
    for name, part in [("wgtune", of_wgtune), ("peft", of_peft)]:
        seen, more = part(options)
        results[name] = summary(seen) | more
    results["ratio"] = results["wgtune"]["peak_resident_bytes"] / results["peft"]["peak_resident_bytes"]
    if options.json:
        return print(json.dumps(results, indent=2))
    for name in ["wgtune", "peft"]:
        print(name, *(f"{key} {value / 2**30:.2f} GiB" for key, value in results[name].items()), sep="\n  ")
    print(f"ratio of the peaks {results['ratio']:.2f}")


if __name__ == "__main__":
    main()
