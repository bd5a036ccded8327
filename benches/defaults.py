"""What sft's defaults learn: validation loss by targets, rank and learning rate, over seeds and lengths of a run.

    cargo build --release
    python benches/defaults.py --wgtune target/release/wgtune --model DIR --data alpaca.jsonl --characters 350 --runs runs.jsonl
    python benches/defaults.py --runs runs.jsonl --table

Rows of more than --characters characters are left out, so that a sweep is done in an hour or two on a CPU. Each run is `wgtune sft`
with a tenth of the rows held out: another tenth for each seed, the same for every setting. What is in --runs already is not run
again, so a sweep goes on where it was stopped. The table gives the mean of the seeds and the distance between the best and the worst.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

SEEDS = [0, 1, 2]
SHORT, LONG = 30, 300
# (targets, rank, learning rate); alpha is twice the rank.
SHORT_SETTINGS = [("q_proj,v_proj", 8, 2e-4), ("q_proj,v_proj", 8, 1e-3)]
SHORT_SETTINGS += [("all-linear", 8, rate) for rate in (2e-4, 5e-4, 1e-3, 2e-3)] + [("all-linear", 16, 5e-4)]
LONG_SETTINGS = [("q_proj,v_proj", 8, 2e-4), ("all-linear", 8, 5e-4), ("all-linear", 8, 1e-3)]


def plan():
    """The runs, the short ones first, and all settings of a seed before the next."""
    for steps, settings in [(SHORT, SHORT_SETTINGS), (LONG, LONG_SETTINGS)]:
        yield from ((steps, *setting, seed) for seed in SEEDS for setting in settings)


def run(options, steps, targets, rank, rate, seed):
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "rows.jsonl", Path(folder) / "out"
        rows = [line for path in options.data for line in path.read_text().splitlines()]
        data.write_text("".join(f"{row}\n" for row in rows if sum(map(len, json.loads(row).values())) <= options.characters))
        command = [options.wgtune, "sft", "--model", options.model, "--data", data, "--out", out, "--json"]
        command += ["--steps", steps, "--targets", targets, "--rank", rank, "--alpha", 2 * rank, "--learning-rate", rate]
        command += ["--seed", seed, "--validation", 0.1, "--device", options.device, "--save-every", 0]
        report = json.loads(subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout)
    validation = [report[f"validation_{when}"]["loss"] for when in ("before", "after")]
    return dict(steps=steps, targets=targets, rank=rank, rate=rate, seed=seed, before=validation[0], after=validation[1])


def table(runs):
    print("| steps | targets | rank | rate | seeds | before | after | spread | gain |\n|---|---|---|---|---|---|---|---|---|")
    key = lambda run: (run["steps"], run["targets"], run["rank"], run["rate"])
    for setting in sorted({key(run) for run in runs}):
        found = [run for run in runs if key(run) == setting]
        before, after = ([run[when] for run in found] for when in ("before", "after"))
        mean = statistics.mean(after)
        steps, targets, rank, rate = setting
        print(f"| {steps} | {targets} | {rank} | {rate:g} | {len(found)} | {statistics.mean(before):.3f} | {mean:.3f} "
              f"| {max(after) - min(after):.3f} | {statistics.mean(before) - mean:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune")
    parser.add_argument("--model")
    parser.add_argument("--data", nargs="+", type=Path)
    parser.add_argument("--characters", type=int, default=1 << 30)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    runs = [json.loads(line) for line in options.runs.read_text().splitlines()] if options.runs.exists() else []
    if options.table:
        return table(runs)
    done = {tuple(run[key] for key in ("steps", "targets", "rank", "rate", "seed")) for run in runs}
    for setting in plan():
        if setting not in done:
            with options.runs.open("a") as file:
                file.write(json.dumps(run(options, *setting)) + "\n")


if __name__ == "__main__":
    main()
