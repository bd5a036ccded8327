"""The classic of learning from rewards: a small model that writes film reviews learns to write kind ones.

    python benches/movies.py --wgtune target/release/wgtune --model DIR --snippets movie_snippets.jsonl --out DIR

A base model is tuned to write the reviews; a reward model learns which are kind, from pairs of a kind review and one that
is not; then PPO (with three seeds), GRPO and DPO tune adapters to write kinder ones, beside the best of eight answers of
the untuned policy. All are judged alike: by the reward model's mean score of one answer to each of the prompts held out,
drawn at temperature 1. Rows of the file have `text` and `label` (positive, negative or neutral). What is there is kept:
a run that was cut off goes on.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import time

SEED = 7
HELD_OUT = 200
NEW_TOKENS = 40
# Updates: where GRPO is by its own, PPO is on its way.
STEPS = {"ppo": 256, "grpo": 200}


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def write(path, rows):
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


class Bench:
    def __init__(self, arguments):
        self.wgtune = os.path.abspath(arguments.wgtune)
        self.model = os.path.abspath(arguments.model)
        self.out = arguments.out
        self.seeds = arguments.seeds
        os.makedirs(self.out, exist_ok=True)

    def run(self, *words):
        """The program's standard output."""
        words = [str(word) for word in words]
        done = subprocess.run([self.wgtune, *words, "--device", "cpu"], cwd=self.out, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    def train(self, *words):
        """A run's report, with how long it took; kept beside its folder."""
        folder = words[words.index("--out") + 1]
        kept = os.path.join(self.out, f"{folder}.json")
        if not os.path.exists(kept):
            begun = time.time()
            report = json.loads(self.run(*words, "--json", "--no-tensorboard", "--overwrite"))
            report["minutes"] = (time.time() - begun) / 60
            with open(kept, "w") as file:
                json.dump(report, file)
        with open(kept) as file:
            return json.load(file)

    def data(self, snippets):
        rows = [row for row in lines(snippets) if len(row["text"].split()) > 6]
        random.Random(SEED).shuffle(rows)
        held_out, rows = rows[:HELD_OUT], rows[HELD_OUT:]
        of = lambda label: [row["text"] for row in rows if row["label"] == label]
        kind, unkind = of("positive"), of("negative")
        begin = lambda text: " ".join(text.split()[:3])
        write(f"{self.out}/texts.jsonl", [{"text": row["text"]} for row in rows])
        write(f"{self.out}/pairs.jsonl", [{"prompt": "", "chosen": a, "rejected": b} for a, b in zip(kind, unkind)])
        write(f"{self.out}/prompts.jsonl", [{"prompt": begin(row["text"])} for row in rows])
        write(f"{self.out}/held_out.jsonl", [{"prompt": begin(row["text"])} for row in held_out])

    def answers(self, prompts, adapter, seed, each=1):
        """What the policy says to the prompts, and what the reward model thinks of it."""
        name = f"said-{adapter or 'policy'}-{seed}-{each}-{os.path.basename(prompts)}"
        rows = [row for row in lines(f"{self.out}/{prompts}") for _ in range(each)]
        write(f"{self.out}/{name}.asked", rows)
        words = ["--adapter", adapter] if adapter else []
        self.run("generate", "--model", "policy", *words, "--prompts", f"{name}.asked", "--temperature", 1,
                 "--max-new-tokens", NEW_TOKENS, "--seed", seed, "--batch", 32, "--out", f"{name}.said", "--overwrite")
        said = [{"prompt": row["prompt"], "completion": row["text"]} for row in lines(f"{self.out}/{name}.said")]
        write(f"{self.out}/{name}.jsonl", said)
        self.run("score", "--model", "reward", "--data", f"{name}.jsonl", "--batch-size", 32,
                 "--out", f"{name}.scored.jsonl", "--overwrite")
        return lines(f"{self.out}/{name}.scored.jsonl")

    def table(self):
        policy = self.train("sft", "--model", self.model, "--data", "texts.jsonl", "--out", "policy", "--method", "full",
                            "--learning-rate", 5e-4, "--epochs", 2, "--batch-size", 16, "--validation", 200)
        reward = self.train("reward", "--model", "policy", "--data", "pairs.jsonl", "--out", "reward", "--method", "full",
                            "--learning-rate", 2e-4, "--epochs", 3, "--batch-size", 16, "--validation", 300, "--eval-every", 50)
        before = [row["score"] for row in self.answers("held_out.jsonl", None, 1)]
        deviation = statistics.stdev(before)
        rows = [("policy", statistics.mean(before), 0.0, policy["minutes"])]
        playing = ["--model", "policy", "--data", "prompts.jsonl", "--reward-model", "reward", "--max-new-tokens", NEW_TOKENS,
                   "--validation", 0, "--schedule", "constant"]
        for seed in self.seeds:
            name = f"ppo{seed}"
            report = self.train("ppo", *playing, "--out", name, "--seed", seed, "--steps", STEPS["ppo"], "--learning-rate", 4e-4,
                                "--batch-size", 32, "--rollouts", 128, "--phase-epochs", 2, "--kl-coef", 0.1, "--kl-target", 12,
                                "--kl-horizon", 10000, "--critic-rate", 2, "--lambda", 0.98)
            rows.append(self.row(f"PPO, seed {seed}", name, report))
        report = self.train("grpo", *playing, "--out", "grpo", "--steps", STEPS["grpo"], "--learning-rate", 1e-3,
                            "--batch-size", 32, "--rollouts", 128, "--beta", 0.03)
        rows.append(self.row("GRPO", "grpo", report))
        begun = time.time()
        both = self.answers("prompts.jsonl", None, 2, each=2)
        pairs = [sorted(both[at:at + 2], key=lambda row: -row["score"]) for at in range(0, len(both), 2)]
        write(f"{self.out}/own.jsonl", [{"prompt": a["prompt"], "chosen": a["completion"], "rejected": b["completion"]}
                                        for a, b in pairs])
        drawn = (time.time() - begun) / 60
        report = self.train("dpo", "--model", "policy", "--data", "own.jsonl", "--out", "dpo", "--learning-rate", 2e-4,
                            "--batch-size", 32, "--epochs", 2, "--beta", 0.1, "--validation", 0)
        report["minutes"] += drawn
        rows.append(self.row("DPO on own pairs", "dpo", report))
        eight = self.answers("held_out.jsonl", None, 3, each=8)
        best = [max(row["score"] for row in eight[at:at + 8]) for at in range(0, len(eight), 8)]
        rows.append(("best of 8", statistics.mean(best), None, None))
        print(f"reward model: accuracy {reward['validation_after']['accuracy']:.3f} of pairs held out, "
              f"calibration error {reward['validation_after']['calibration_error']:.3f}, "
              f"correlation with length {reward['validation_after']['length_correlation']:.2f}\n")
        print("| | mean reward | rise, in deviations of the start's | KL, nats | minutes |\n|---|---|---|---|---|")
        for name, mean, kl, minutes in rows:
            show = lambda value: "" if value is None else f"{value:.2f}"
            print(f"| {name} | {mean:.2f} | {(mean - rows[0][1]) / deviation:.2f} | {show(kl)} | {show(minutes)} |")
        for name in [f"ppo{seed}" for seed in self.seeds] + ["grpo"]:
            curve = [(line["step"], line["reward"], line.get("objective/kl", line.get("kl", 0.0)), line["entropy"])
                     for line in lines(f"{self.out}/{name}/metrics.jsonl") if line["phase/update"] == 0]
            points = [curve[at * (len(curve) - 1) // 8] for at in range(9)]
            print(f"\n{name}: " + "; ".join(f"step {step}: reward {reward:.2f}, KL {kl:.2f}, entropy {entropy:.2f}"
                                          for step, reward, kl, entropy in points))

    def row(self, title, adapter, report):
        last = lines(f"{self.out}/{adapter}/metrics.jsonl")[-1]
        scores = [row["score"] for row in self.answers("held_out.jsonl", adapter, 1)]
        return title, statistics.mean(scores), last.get("objective/kl"), report["minutes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune", required=True, help="the program")
    parser.add_argument("--model", required=True, help="the folder of a small model")
    parser.add_argument("--snippets", required=True, help="JSON Lines with text and label")
    parser.add_argument("--out", required=True, help="where all goes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    bench = Bench(arguments)
    bench.data(arguments.snippets)
    bench.table()


if __name__ == "__main__":
    main()
