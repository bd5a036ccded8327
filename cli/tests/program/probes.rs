//! What a run costs, and what it does to rows that it is not trained on.

use serde_json::{Value, json};

use crate::folder::Folder;

const LORA: &str = "sft --model model --data rows.jsonl --rank 4 --validation 0 --learning-rate 0.02 --device cpu --json";

fn folder() -> Folder {
    let folder = Folder::new();
    for (name, factor) in [("other.jsonl", 3), ("third.jsonl", 7)] {
        let rows: Vec<Value> = (0..6u32).map(|row| json!({"input_ids": [row, row * factor, 9, row + 1]})).collect();
        folder.write_rows(name, &rows);
    }
    folder
}

#[test]
fn what_is_scored_before_is_the_bare_model_and_after_what_was_written() {
    let folder = folder();
    let probes = "--probe other.jsonl --unseen third.jsonl --unseen other.jsonl";
    let report = folder.reports(&format!("{LORA} --steps 6 {probes} --out out"));
    let loss = |file: &str, adapter: &str| {
        folder.reports(&format!("eval --model model --data {file} --device cpu --json {adapter}"))["loss"].as_f64().unwrap()
    };
    let scores = [&report["probe"], &report["unseen"][0], &report["unseen"][1]];
    for (scored, file) in scores.into_iter().zip(["other.jsonl", "third.jsonl", "other.jsonl"]) {
        assert_eq!(scored["file"], file);
        for (when, adapter) in [("before", ""), ("after", "--adapter out")] {
            // Of about 4, in f32, the same ops on the same numbers.
            assert!((scored[when]["loss"].as_f64().unwrap() - loss(file, adapter)).abs() < 1e-5, "{when}: {scored}");
        }
    }
    assert_ne!(report["probe"]["before"]["loss"], report["probe"]["after"]["loss"]);

    let [trained, all] = ["trained_parameters", "all_parameters"].map(|key| report[key].as_f64().unwrap());
    assert_eq!((report["trained_share"].as_f64(), report["trained_factor"].as_f64()), (Some(trained / all), Some(all / trained)));
    assert_eq!(report["full_tuning_bytes"].as_f64(), Some(16.0 * (all - trained)));
}

#[test]
fn a_resumed_run_knows_its_probe_and_not_what_was_before() {
    let folder = folder();
    let run = |more: &str| format!("{LORA} --schedule constant --out out {more}");
    folder.succeeds(&run("--steps 2 --probe other.jsonl"));
    let report = folder.reports(&run("--steps 4 --probe other.jsonl --resume"));
    assert!(report["probe"]["before"].is_null() && report["probe"]["after"]["loss"].is_f64(), "{report}");
    folder.fails(&run("--steps 4 --probe third.jsonl --resume"), &["`probe`"]);
    folder.write("empty.jsonl", "");
    folder.fails(&format!("{LORA} --steps 1 --unseen empty.jsonl --out new"), &["empty.jsonl: empty"]);
    folder.write_rows("silent.jsonl", &[json!({"input_ids": [1, 2], "labels": [-100, -100]})]);
    folder.fails(&format!("{LORA} --steps 1 --unseen silent.jsonl --out new"), &["silent.jsonl", "nothing to learn"]);
    assert!(folder.names("new").is_empty());
}

#[test]
fn a_plan_says_what_the_run_then_takes() {
    let folder = folder();
    for (name, options) in [
        ("lora", "--rank 4"),
        ("full", "--method full --accumulate 2"),
        ("prefix", "--method prefix --virtual-tokens 4 --batch-size 2"),
        ("packed", "--packing --max-length 24 --checkpoint-blocks"),
    ] {
        let sft = format!("sft --model model --data rows.jsonl --steps 12 --device cpu --json {options} --out {name}");
        let plan = folder.reports(&format!("{sft} --plan"));
        assert!(folder.names(name).is_empty(), "{name}");
        let [planned, taken] = [&plan, &folder.reports(&sft)].map(|report| report["peak_tensor_bytes"].as_f64().unwrap());
        assert!((planned / taken - 1.0).abs() < 0.05, "{name}: {planned} planned, {taken} taken");
        let parts = ["weight", "trained", "gradient", "moment", "activation"];
        let sum: f64 = parts.map(|part| plan[format!("{part}_bytes")].as_f64().unwrap()).iter().sum();
        assert_eq!(sum, planned, "{name}: {plan}");
        let less = plan["instead"].as_array().unwrap();
        assert!(less.iter().all(|instead| instead["peak_tensor_bytes"].as_f64().unwrap() < planned), "{plan}");

        // What it names takes what it says.
        for instead in less {
            let options = instead["options"].as_str().unwrap();
            let sft = if options.contains("--accumulate") { sft.replace("--accumulate 2", "") } else { sft.clone() };
            let sft = if options.contains("--batch-size") { sft.replace("--batch-size 2", "") } else { sft };
            let changed = format!("{sft} {options}");
            let taken = folder.reports(&format!("{changed} --overwrite"))["peak_tensor_bytes"].as_f64().unwrap();
            let planned = instead["peak_tensor_bytes"].as_f64().unwrap();
            assert!((planned / taken - 1.0).abs() < 0.05, "{changed}: {planned} planned, {taken} taken");
        }
    }
    // However many batches are behind an update, and without what no option can say.
    let plan = folder
        .reports("sft --model model --data rows.jsonl --device cpu --json --batch-size 65 --accumulate 4096 --out a --plan");
    let options: Vec<&str> = plan["instead"].as_array().unwrap().iter().map(|way| way["options"].as_str().unwrap()).collect();
    assert_eq!(options, ["--checkpoint-blocks"]);
    let pretrain = "pretrain --data text.txt --steps 2 --device cpu --json --hidden-size 16 --layers 1 --vocab-size 300";
    folder.write("text.txt", "Some text, and some more.");
    let plan = folder.reports(&format!("{pretrain} --out new --plan"));
    assert!(plan["peak_tensor_bytes"].as_u64().unwrap() > 0 && folder.names("new").is_empty(), "{plan}");
    folder.fails("sft --model model --data rows.jsonl --out a --plan --resume", &["--plan", "cannot be used with"]);
}
