"""GRPO with a reward that can be checked: a tiny model that gets few one-digit sums right learns them from its own answers.

    python benches/sums.py --wgtune target/release/wgtune --out DIR

A Llama of 91,200 parameters is pretrained on sums until it gets about one of six right, drawn at temperature 1; GRPO then
rewards an answer that is exactly the sum (`--reward-rule exact`), 16 answers to each of the 100 sums a phase.
"""

import argparse
import json
import os
import random
import subprocess
import time

SUMS = [(f"{a}+{b}=", str(a + b)) for a in range(10) for b in range(10)]
MODEL = ["--vocab-size", 300, "--hidden-size", 64, "--intermediate-size", 128, "--layers", 2, "--heads", 4,
         "--key-value-heads", 2, "--batch-size", 16, "--max-length", 64, "--packing"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune", required=True, help="the program")
    parser.add_argument("--out", required=True, help="a folder that is not there yet")
    parser.add_argument("--steps", type=int, default=1600, help="updates")
    arguments = parser.parse_args()
    program, out = os.path.abspath(arguments.wgtune), arguments.out
    os.makedirs(out)
    drawn = random.Random(3)
    with open(f"{out}/text.txt", "w") as file:
        file.write("\n<|endoftext|>\n".join("".join(drawn.choice(SUMS)) for _ in range(3000)) + "\n")
    with open(f"{out}/sums.jsonl", "w") as file:
        file.writelines(json.dumps({"prompt": prompt, "completion": sum}) + "\n" for prompt, sum in SUMS)

    def run(*words):
        words = [str(word) for word in words]
        subprocess.run([program, *words, "--validation", "0", "--device", "cpu", "--no-tensorboard"], cwd=out, check=True)

    run("pretrain", "--data", "text.txt", "--out", "base", *MODEL, "--steps", 100, "--learning-rate", 3e-3)
    begun = time.time()
    run("grpo", "--model", "base", "--data", "sums.jsonl", "--out", "tuned", "--method", "full", "--reward-rule", "exact",
        "--max-new-tokens", 4, "--batch-size", 200, "--rollouts", 1600, "--together", 400, "--answers", 16,
        "--steps", arguments.steps, "--learning-rate", 1e-3)
    minutes = (time.time() - begun) / 60
    with open(f"{out}/tuned/metrics.jsonl") as file:
        phases = [line for line in map(json.loads, file) if line["phase/update"] == 0]
    print(f"{minutes:.1f} minutes\n\n| step | right, at temperature 1 | entropy, nats |\n|---|---|---|")
    for at in range(11):
        line = phases[at * (len(phases) - 1) // 10]
        print(f"| {line['step']} | {100 * line['reward']:.0f} % | {line['entropy']:.2f} |")


if __name__ == "__main__":
    main()
