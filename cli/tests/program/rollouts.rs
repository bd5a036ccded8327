//! Learning from a policy's own answers: rewards rise, a run that is cut off comes to the same, and what judges may fail.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::folder::{Folder, Run};

const OPTIONS: &str =
    "--model model --data prompts.jsonl --max-new-tokens 6 --batch-size 8 --device cpu --schedule constant --no-tensorboard";
const GRPO: &str = "grpo --answers 4 --reward-rule regex=mat --learning-rate 0.01";
const PPO: &str = "ppo --reward-rule regex=mat --learning-rate 0.01";

/// A folder with a model of four sentences, and the beginnings of these.
fn folder() -> Folder {
    let folder = Folder::pretrained();
    let begins = ["The cat sat on the", "The dog ran in the", "A bird sang in the", "The sun rose over the"];
    let row = |at: usize| json!({"prompt": begins[at % 4], "completion": " mat."});
    folder.write_rows("prompts.jsonl", &(0..16).map(row).collect::<Vec<_>>());
    folder
}

fn metrics(folder: &Folder, out: &str) -> Vec<Value> {
    let text = String::from_utf8(folder.read(&format!("{out}/metrics.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of metrics without what the clock and the machine decide.
fn curve(folder: &Folder, out: &str) -> Vec<Value> {
    let timed = ["tokens_per_second", "peak_tensor_bytes", "peak_process_bytes", "time/rollout", "time/scoring"];
    let mut lines = metrics(folder, out);
    lines.iter_mut().for_each(|line| timed.iter().for_each(|key| drop(line.as_object_mut().unwrap().remove(*key))));
    lines
}

#[test]
fn rewards_rise_by_either_way_of_learning_and_any_critic() {
    let folder = folder();
    // That an answer is short is soon learnt.
    let grpo = "grpo --answers 4 --reward-rule length=2 --learning-rate 0.01 --rollouts 32 --steps 60";
    let ppo = "ppo --reward-rule length=2 --learning-rate 0.01 --rollouts 32 --steps 96 --phase-epochs 2 --critic-rate 1 --kl-coef 0.01";
    for (name, command) in [
        ("grpo", grpo.to_string()),
        ("dr_grpo", format!("{} --loss dr_grpo --scale-rewards none --beta 0.01 --ratio sequence", grpo.replace("60", "160"))),
        ("adapters", format!("{grpo} --method adapters --reduction-factor 4")),
        ("own", ppo.to_string()),
        ("saved", format!("{ppo} --modules-to-save norm")),
        ("shared", format!("{ppo} --critic shared --kl-estimator k3 --kl-target 3 --reward-clip 1")),
        ("full", format!("{ppo} --method full --critic-warmup 4 --target-kl 0.5 --entropy-coef 0.001")),
    ] {
        let report = folder.succeeds(&format!("{command} {OPTIONS} --validation 4 --out {name} --json"));
        let report: Value = serde_json::from_str(&report).unwrap();
        let lines = metrics(&folder, name);
        let mean = |lines: &[Value]| lines.iter().map(|line| line["reward"].as_f64().unwrap()).sum::<f64>() / lines.len() as f64;
        let [first, last] = [mean(&lines[..1]), mean(&lines[lines.len() - 16..])];
        // A deviation of the first rewards is about 0.5.
        assert!(last > first + 0.25, "{name}: from {first} to {last}: {report}");
        // The policy finds its own answers as it did when it drew them.
        let ratio = lines[0].get("val/ratio").unwrap_or(&lines[0]["ratio"]);
        assert_eq!(ratio, &json!(1.0), "{name}");
        assert!(lines[0]["sampling/logp_difference"].as_f64().unwrap() < 1e-5, "{name}: {}", lines[0]);
        // And its reference stays where it was while it moves, whatever of the model itself is trained.
        if let Some(kl) = lines[0].get("objective/kl") {
            assert!(kl.as_f64().unwrap().abs() < 1e-5, "{name}: {kl}");
            assert!(lines[lines.len() - 1]["objective/kl"].as_f64().unwrap() > 0.05, "{name}: {}", lines[lines.len() - 1]);
        }
    }
}

#[test]
fn a_run_that_is_cut_off_comes_to_the_same() {
    let folder = folder();
    // By a reward that differs among few answers.
    let grpo = GRPO.replace("regex=mat", "length=2");
    for (name, command) in [
        ("grpo", format!("{grpo} --beta 0.01 --phase-epochs 2 --rollouts 16")),
        ("ppo", format!("{PPO} --rollouts 16 --kl-target 3 --kl-horizon 100 --phase-epochs 3")),
    ] {
        let command = format!("{command} {OPTIONS} --validation 0 --save-every 1");
        folder.succeeds(&format!("{command} --steps 10 --out {name}"));
        // In two parts, of which the first ends in the middle of a phase.
        folder.succeeds(&format!("{command} --steps 3 --out parts"));
        folder.succeeds(&format!("{command} --steps 10 --out parts --resume"));
        let same = |out: &str| {
            assert_eq!(curve(&folder, out), curve(&folder, name), "{name}: {out}");
            for file in ["adapter_model.safetensors", "checkpoint/tensors.safetensors", "checkpoint/recipe.json"] {
                assert!(folder.read(&format!("{out}/{file}")) == folder.read(&format!("{name}/{file}")), "{name}: {out}/{file}");
            }
        };
        same("parts");
        // And wherever it is killed.
        let resumed = format!("{command} --steps 10 --out killed --resume");
        for pause in [150, 250, 350, 450] {
            let mut child = folder.start(&resumed);
            std::thread::sleep(Duration::from_millis(pause));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        folder.succeeds(&resumed);
        same("killed");
        ["parts", "killed"].iter().for_each(|out| std::fs::remove_dir_all(folder.path(out)).unwrap());
    }
}

#[test]
fn batches_change_no_numbers_and_a_rate_of_nothing_moves_nothing() {
    let folder = folder();
    let first = |command: &str, options: &str, out: &str| {
        folder.succeeds(&format!(
            "{command} {} --validation 0 --steps 1 --rollouts 8 {options} --out {out}",
            OPTIONS.replace("--batch-size 8", "")
        ));
        metrics(&folder, out).remove(0)
    };
    for (name, command) in [("grpo", &GRPO.replace("regex=mat", "length=3")[..]), ("ppo", PPO)] {
        let all = first(command, "--batch-size 8 --together 8", &format!("{name}8"));
        let one = first(command, "--batch-size 1 --accumulate 8 --together 1", &format!("{name}1"));
        for figure in ["loss", "reward", "entropy", "grad_norm", "completions/mean_length"] {
            let (all, one) = (all[figure].as_f64().unwrap(), one[figure].as_f64().unwrap());
            // Rows of other lengths beside it are summed in another order.
            assert!((all - one).abs() < 2e-5 * (1.0 + one.abs()), "{name}, {figure}: {one} alone, {all} together");
        }
    }
    let still = PPO.replace("0.01", "1e-30");
    folder.succeeds(&format!("{still} {OPTIONS} --validation 0 --steps 16 --rollouts 16 --out still"));
    for line in metrics(&folder, "still") {
        let of = |figure: &str| line[figure].as_f64().unwrap();
        assert!((of("val/ratio") - 1.0).abs() < 1e-6 && of("objective/kl").abs() < 1e-6, "{line}");
    }
}

#[test]
#[cfg(unix)]
fn a_program_judges_and_one_that_fails_twice_ends_the_run() {
    let folder = folder();
    let ppo = |out: &str, program: &str, more: &[&str]| {
        let steps = if more.contains(&"--steps") { "" } else { "--steps 4" };
        let options = format!("ppo {OPTIONS} --validation 0 {steps} --rollouts 16 --out {out}");
        let words: Vec<&str> =
            options.split_whitespace().chain(["--reward-program", program]).chain(more.iter().copied()).collect();
        folder.run_with(&words)
    };
    let run = ppo("counts", "while read -r line; do echo \"{\\\"score\\\": ${#line}}\"; done", &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let rewards = metrics(&folder, "counts")[0]["rewards/program"].as_f64().unwrap();
    assert!(rewards > 20.0, "{rewards}");
    // One that ends in the middle is started again.
    let program = "if [ -e again.txt ]; then while read -r line; do echo 1; done; else touch again.txt; read -r line; echo 1; fi";
    let run = ppo("again", program, &[]);
    assert!(run.stderr.contains("ended: it is started again"), "{}", run.stderr);
    assert_eq!(metrics(&folder, "again").len(), 4);
    // Ids say what an answer is to: here the last comes first. It was asked for 16 a phase.
    let program = "while read -r line; do all=\"$line\n$all\"; count=$((count+1)); if [ $count = 16 ]; then i=15; \
        while [ $i -ge 0 ]; do echo \"{\\\"id\\\": $i, \\\"score\\\": $i}\"; i=$((i-1)); done; count=0; fi; done";
    let run = ppo("backwards", program, &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(metrics(&folder, "backwards")[0]["reward"], json!(7.5));
    // More than was asked would be taken for what is asked next: nothing is started again.
    let run = ppo("unasked", "while read -r line; do echo 1; echo 2; done", &["--steps", "40"]);
    run.failed(&["without being asked"]);
    for (out, program, expected) in [
        ("dies", "exit 3", "ended"),
        ("hangs", "sleep 60", "did not answer in time"),
        ("nonsense", "while read -r line; do echo good; done", "said \"good\"; expected a number"),
        ("endless", "tr '\\0' '1' </dev/zero", "expected a number"),
        ("twice", "while read -r line; do echo '{\"id\": 3, \"score\": 1}'; done", "expected each question's id once"),
        ("infinite", "while read -r line; do echo 1e999; done", "expected a number"),
    ] {
        let run = ppo(out, program, &["--reward-seconds", "0.5"]);
        run.failed(&[expected, "started twice"]);
    }
    // Who waits for one that hangs can stop at once.
    let command = format!("ppo {OPTIONS} --validation 0 --steps 4 --rollouts 16 --out waits");
    let program = ["--reward-program", "touch asked.txt; sleep 600", "--reward-seconds", "600"];
    let words: Vec<&str> = command.split_whitespace().chain(program).collect();
    let child = folder.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !folder.path("asked.txt").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not asked");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let run = Run::new(child.wait_with_output().unwrap());
    assert!(run.code == Some(130) && begun.elapsed() < Duration::from_secs(60), "{}", run.stderr);
}

#[test]
fn what_is_only_cut_is_said_not_to_be_learnt_from() {
    let folder = folder();
    let options = OPTIONS.replace("--max-new-tokens 6", "--max-new-tokens 1");
    let command = "grpo --answers 4 --reward-rule length=2 --overlong drop --rollouts 16 --steps 2 --validation 0 --out out";
    let run = folder.run(&format!("{command} {options}"));
    run.failed(&["no answer of this update is learnt from", "expected room for longer ones"]);
    assert!(!run.stderr.contains("times as likely"), "{}", run.stderr);
}

#[test]
fn what_cannot_be_judged_or_asked_is_refused() {
    let folder = folder();
    folder.write_rows("long.jsonl", &[json!({"prompt": "The cat sat on the mat. ".repeat(400)})]);
    folder.write_rows("bare.jsonl", &[json!({"prompt": "The"})]);
    folder.write_rows("empty.jsonl", &[json!({"prompt": ""})]);
    for (options, expected) in [
        ("--data prompts.jsonl", "nothing says how good an answer is"),
        ("--data prompts.jsonl --reward-rule other", "expected one of regex=EXPRESSION"),
        ("--data prompts.jsonl --reward-rule regex=(", "expected a regular expression"),
        ("--data prompts.jsonl --reward-rule length --reward-weights 1,2", "--reward-weights has 2 numbers: expected 1"),
        ("--data prompts.jsonl --reward-model model", "model gives no scores"),
        ("--data prompts.jsonl --reward-rule length --rollouts 9", "expected a multiple of the answers of an update"),
        ("--data bare.jsonl --reward-rule exact", "compares with a completion, and a row has none"),
        ("--data empty.jsonl --reward-rule length", "empty.jsonl:1: an empty prompt"),
        ("--data long.jsonl --reward-rule length", "no prompt leaves room"),
        ("--data text.txt --reward-rule length", "text.txt:1: a text; expected a prompt"),
        ("--data prompts.jsonl --reward-rule length --reward-seconds 5", "expected --reward-program too"),
        (
            "--data prompts.jsonl --reward-rule length --overlong drop --overlong-margin 9",
            "--overlong-margin is of --overlong penalise",
        ),
        ("--data prompts.jsonl --reward-rule length --no-kl-correction", "expected --beta above 0 too"),
    ] {
        let run = folder.run(&format!("grpo --model model {options} --validation 0 --max-new-tokens 8 --out out --device cpu"));
        run.failed(&[expected]);
    }
    let ppo = format!("ppo {OPTIONS} --validation 0 --reward-rule length --out out");
    folder.fails(&format!("{ppo} --steps 8 --critic-warmup 8"), &["--critic-warmup is 8: expected fewer than the 8 updates"]);
    folder.fails(&format!("{ppo} --critic-warmup 2 --weight-decay 0.1"), &["--weight-decay moves the policy"]);
}

#[test]
fn length_that_is_rewarded_raises_the_alarm() {
    let folder = folder();
    let options = OPTIONS.replace("--max-new-tokens 6", "--max-new-tokens 120");
    let report = folder.succeeds(&format!(
        "grpo {options} --answers 4 --reward-rule length --rollouts 64 --steps 80 --learning-rate 0.02 --validation 0 --out long --json"
    ));
    let report: Value = serde_json::from_str(&report).unwrap();
    let said: Vec<&str> = report["alarms"].as_array().into_iter().flatten().filter_map(|alarm| alarm["text"].as_str()).collect();
    assert!(said.iter().any(|text| text.contains("it may be length that is rewarded")), "{report}");
    assert!(metrics(&folder, "long").iter().any(|line| line["alarms"].is_array()));
}
