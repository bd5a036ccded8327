//! Evaluation on the way: its losses stand on the lines of their steps, the best weights are what a run ends with, and it may end
//! before its last step.

use serde_json::{Value, json};

use crate::folder::{Folder, curve};

/// A run on `patterns.jsonl` whose validation loss falls, rises, and falls again: the best is neither the first nor the last.
pub const UP_AND_DOWN: &str = "sft --model model --data patterns.jsonl --steps 31 --batch-size 2 --learning-rate 6e-2 --dropout 0.2 \
     --schedule constant --warmup 4 --device cpu --seed 3 --validation 4";

/// A folder with rows that count up from where they begin.
pub fn patterns() -> Folder {
    let folder = Folder::new();
    let row = |row: u32| (0..8).map(|place| (row * 5 + place * (1 + row % 2)) % 64).collect::<Vec<u32>>();
    folder.write_rows("patterns.jsonl", &(0..16).map(|index| json!({"input_ids": row(index)})).collect::<Vec<_>>());
    folder
}

/// The steps with a validation loss, and it.
fn evaluations(folder: &Folder, out: &str) -> Vec<(u64, f64)> {
    let lines = folder.lines(&format!("{out}/metrics.jsonl"));
    let loss = |line: &Value| Some((line["step"].as_u64().unwrap(), line["validation_loss"].as_f64()?));
    lines.iter().filter_map(loss).collect()
}

#[test]
fn evaluations_on_the_way_change_no_step_and_the_best_of_them_is_written() {
    let folder = patterns();
    folder.succeeds(&format!("{UP_AND_DOWN} --out plain"));
    let report = folder.reports(&format!("{UP_AND_DOWN} --eval-every 3 --out best --json"));
    assert!(evaluations(&folder, "plain").is_empty());
    let found = evaluations(&folder, "best");
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]);
    let best = found.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!((6..30).contains(&best.0), "{found:?}");
    assert_eq!((report["best_step"].as_u64(), report["best_validation_loss"].as_f64()), (Some(best.0), Some(best.1)));
    assert_eq!((&report["written_step"], &report["steps"]), (&best.0.into(), &31.into()));
    assert_eq!(report["validation_after"]["loss"], report["best_validation_loss"]);

    let without = |line: String| {
        let mut line: Value = serde_json::from_str(&line).unwrap();
        line.as_object_mut().unwrap().remove("validation_loss");
        line
    };
    let curve = |out: &str| curve(&folder, out).into_iter().map(without).collect::<Vec<_>>();
    assert_eq!(curve("best"), curve("plain"));
    // What is written is what a run has that ends there.
    folder.succeeds(&format!("{UP_AND_DOWN} --out short").replace("--steps 31", &format!("--steps {}", best.0)));
    let weights = |out: &str| folder.read(&format!("{out}/adapter_model.safetensors"));
    assert!(weights("best") == weights("short") && weights("best") != weights("plain"));

    let report = folder.reports(&format!("{UP_AND_DOWN} --eval-every 3 --keep-last --out last --json"));
    assert!(weights("last") == weights("plain"));
    assert_eq!((&report["best_step"], &report["written_step"]), (&best.0.into(), &31.into()));
}

#[test]
fn an_end_that_is_better_than_all_on_the_way_is_written() {
    let folder = patterns();
    let train = UP_AND_DOWN.replace("6e-2", "1e-2");
    let run = folder.run(&format!("{train} --eval-every 4 --out out"));
    assert!(run.stderr.contains("validation after step 28: loss "), "{}", run.stderr);
    assert!(run.stdout.contains("the best was that of step 31, validation loss "), "{}", run.stdout);
    folder.succeeds(&format!("{train} --out plain"));
    assert!(folder.read("out/adapter_model.safetensors") == folder.read("plain/adapter_model.safetensors"));
}

#[test]
fn a_run_whose_patience_ends_stops_there_also_when_it_is_resumed() {
    let folder = patterns();
    let train = format!("{UP_AND_DOWN} --eval-every 1 --patience 4 --out out");
    let run = folder.run(&train);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let found = evaluations(&folder, "out");
    let (end, best) = found.split_last_chunk::<4>().map(|(before, last)| (last, before.last().unwrap())).unwrap();
    assert!(end.iter().all(|(_, loss)| *loss >= best.1) && end[3].0 < 31, "{found:?}");
    let stopped = format!("stopped after step {} of 31: 4 evaluations in a row brought nothing better", end[3].0);
    assert!(run.stderr.contains(&stopped), "{}", run.stderr);
    let (lines, weights) = (folder.read("out/metrics.jsonl"), folder.read("out/adapter_model.safetensors"));
    folder.succeeds(&format!("{train} --resume"));
    assert!(folder.read("out/metrics.jsonl") == lines && folder.read("out/adapter_model.safetensors") == weights);
}

#[test]
fn a_finished_run_that_goes_on_for_more_steps_forgets_what_it_had_written() {
    let folder = patterns();
    let train = format!("{UP_AND_DOWN} --eval-every 3");
    folder.succeeds(&format!("{train} --out whole"));
    // Its end is no moment of the longer run's, and its weights were those of an earlier step.
    folder.succeeds(&format!("{train} --out out").replace("--steps 31", "--steps 11"));
    folder.succeeds(&format!("{train} --out out --resume"));
    assert_eq!(curve(&folder, "out"), curve(&folder, "whole"));
    for file in ["adapter_model.safetensors", "checkpoint/state.json", "checkpoint/tensors.safetensors"] {
        assert!(folder.read(&format!("out/{file}")) == folder.read(&format!("whole/{file}")), "{file}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_before_any_work() {
    let folder = patterns();
    let train = UP_AND_DOWN.replace("--validation 4", "--validation 0");
    folder.fails(&format!("{train} --eval-every 2 --out out"), &["--eval-every without rows", "expected --validation above 0"]);
    folder.fails(&format!("{UP_AND_DOWN} --patience 2 --out out"), &["--patience", "expected --eval-every above 0"]);
    assert!(folder.names("out").is_empty());
}

#[test]
fn a_checkpoint_without_its_best_weights_is_refused() {
    let folder = patterns();
    let train = format!("{UP_AND_DOWN} --eval-every 3 --out out");
    folder.succeeds(&train);
    std::fs::remove_file(folder.path("out/checkpoint/best.safetensors")).unwrap();
    folder.fails(&format!("{train} --resume"), &["out/checkpoint/best.safetensors"]);
    folder.copy_fixture("llama", "other");
    std::fs::copy(folder.path("other/model.safetensors"), folder.path("out/checkpoint/best.safetensors")).unwrap();
    folder.fails(&format!("{train} --resume"), &["out/checkpoint/best.safetensors", "no tensor"]);
}
