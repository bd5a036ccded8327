//! Files mixed in chosen shares.

use serde_json::{Value, json};

use crate::folder::{Folder, curve};

const SFT: &str = "sft --model model --rank 4 --learning-rate 0.01 --schedule constant --device cpu --json";

/// A folder with 30 short rows and 12 long ones.
fn folder() -> Folder {
    let folder = Folder::new();
    for (name, rows, length) in [("short.jsonl", 30u32, 4u32), ("long.jsonl", 12, 11)] {
        let row = |row: u32| json!({"input_ids": (0..length).map(|place| (7 * row + place) % 64).collect::<Vec<_>>()});
        folder.write_rows(name, &(0..rows).map(row).collect::<Vec<_>>());
    }
    folder
}

fn shares(report: &Value, key: &str) -> Vec<f64> {
    report["mixture"].as_array().unwrap().iter().map(|share| share[key].as_f64().unwrap()).collect()
}

#[test]
fn shares_are_of_rows_or_of_tokens_and_told() {
    let folder = folder();
    let data = "--data short.jsonl:1.4 long.jsonl:0.6 --batch-size 7 --steps 20";
    let run = folder.run(&format!("{SFT} {data} --validation 0.5 --out rows"));
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}", run.stderr));
    assert_eq!((shares(&report, "of_rows"), shares(&report, "rows")), (vec![0.7, 0.3], vec![98.0, 42.0]));
    // Half of each is held out: 15 and 6 are gone through.
    assert!((shares(&report, "passes")[0] - 98.0 / 15.0).abs() < 1e-9 && shares(&report, "passes")[1] == 7.0, "{report}");
    assert_eq!(report["validation_after"]["trained_tokens"], 15 * 3 + 6 * 10);
    assert!(run.stderr.contains("short.jsonl: 70.0 % of the rows (98, 6.53 passes), 45.9 % of the tokens"), "{}", run.stderr);

    let report = folder.reports(&format!("{SFT} {data} --mix tokens --validation 0 --out tokens"));
    let of_tokens = shares(&report, "of_tokens");
    let all: f64 = shares(&report, "tokens").iter().sum();
    // Never more than the longest row away.
    assert!((of_tokens[0] - 0.7).abs() <= 11.0 / all, "{report}");
}

#[test]
fn a_mixture_resumed_is_the_one_that_went_through() {
    let folder = folder();
    let sft = |more: &str| format!("{SFT} --data short.jsonl:3 long.jsonl:2 --mix tokens --batch-size 3 --validation 0 {more}");
    folder.succeeds(&sft("--steps 17 --out whole"));
    folder.succeeds(&sft("--steps 8 --out parts"));
    folder.succeeds(&sft("--steps 17 --out parts --resume"));
    let weights = |out: &str| folder.read(&format!("{out}/adapter_model.safetensors"));
    assert!(weights("whole") == weights("parts"));
    assert_eq!(curve(&folder, "whole"), curve(&folder, "parts"));
    let other = sft("--steps 17 --out parts --resume").replace(":2", ":1");
    folder.fails(&other, &["began with `mixture` \"3 of 30 examples, 2 of 12 examples\""]);
    folder.succeeds("sft --config whole/run.toml --out again");
    assert!(weights("whole") == weights("again"));
}

#[test]
fn weights_that_are_none_are_refused() {
    let folder = folder();
    for (data, expected) in [
        ("short.jsonl:1 long.jsonl", "long.jsonl has no weight, and other files have"),
        ("short.jsonl:0 long.jsonl:0", "short.jsonl weighs 0: expected a number above 0"),
        ("short.jsonl:-1 long.jsonl:1", "short.jsonl weighs -1"),
        ("short.jsonl:nan long.jsonl:1", "short.jsonl weighs NaN"),
        ("short.jsonl:inf long.jsonl:1", "short.jsonl weighs inf"),
        ("short.jsonl:1e308 long.jsonl:1e308", "expected smaller ones"),
        ("short.jsonl:half long.jsonl", "short.jsonl:half"),
        ("short.jsonl:1 --packing", "expected only one of the two"),
        ("short.jsonl --mix tokens", "expected FILE:WEIGHT"),
        ("short.jsonl:1 long.jsonl:1 --validation 0.96", "long.jsonl: 12 rows held out of 12"),
    ] {
        folder.fails(&format!("{SFT} --steps 1 --out out --data {data}"), &[expected]);
        assert!(folder.names("out").is_empty(), "{data}");
    }
    folder.fails("eval --model model --device cpu --data short.jsonl:1", &["weights, which are for training"]);
    // A file that is really called so is meant.
    folder.write("odd.jsonl:3", folder.read("short.jsonl"));
    folder.succeeds(&format!("{SFT} --steps 1 --out odd --data odd.jsonl:3"));
}
