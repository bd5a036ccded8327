//! Learning from answers that somebody judged: what is preferred becomes likelier, a run in two parts is the run in one, and rows
//! that say nothing are refused or left out.

use serde_json::{Value, json};

use crate::folder::Folder;

/// Beginnings of the sentences that the folder's model knows, each with two ends.
const BEGINS: [&str; 4] = ["The cat sat on the", "The dog ran in the", "A bird sang in the", "The sun rose over the"];

fn pairs(folder: &Folder) {
    let (good, bad) = ([" hill.", " mat."], [" park.", " tree."]);
    let row = |at: usize| json!({"prompt": BEGINS[at % 4], "chosen": good[at % 2], "rejected": bad[at / 2 % 2]});
    folder.write_rows("pairs.jsonl", &(0..12).map(row).collect::<Vec<_>>());
}

fn lines(folder: &Folder, file: &str) -> Vec<Value> {
    String::from_utf8(folder.read(file)).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const OPTIONS: &str = "--model model --validation 3 --batch-size 3 --learning-rate 0.01 --device cpu";

#[test]
fn what_is_preferred_becomes_likelier_and_two_parts_are_one_run() {
    let folder = Folder::pretrained();
    pairs(&folder);
    let label = |row: &Value, key: &str| json!({"prompt": row["prompt"], "completion": row[key], "label": key == "chosen"});
    let labels = lines(&folder, "pairs.jsonl")
        .iter()
        .flat_map(|row| ["chosen", "rejected"].map(|key| label(row, key)))
        .collect::<Vec<_>>();
    folder.write_rows("labels.jsonl", &labels);
    for (name, command, figure) in [
        ("sigmoid", "dpo --data pairs.jsonl --label-smoothing 0.1 --sft 0.1", "rewards/margins"),
        ("ipo", "dpo --data pairs.jsonl --loss ipo", "rewards/margins"),
        ("prompt", "dpo --data pairs.jsonl --method prompt --virtual-tokens 3 --learning-rate 0.1", "rewards/margins"),
        ("full", "dpo --data pairs.jsonl --method full", "rewards/margins"),
        ("orpo", "orpo --data pairs.jsonl", "rewards/margins"),
        ("reward", "reward --data pairs.jsonl --centre 0.01", "margin"),
        ("kto", "kto --data pairs.jsonl", "rewards/margins"),
        ("labels", "kto --data labels.jsonl --bad-weight 1.5", "rewards/margins"),
    ] {
        let options =
            if command.contains("learning-rate") { OPTIONS.replace("--learning-rate 0.01", "") } else { OPTIONS.into() };
        let command = format!("{command} {options} --schedule constant");
        let report: Value = serde_json::from_str(&folder.succeeds(&format!("{command} --steps 12 --out {name} --json"))).unwrap();
        let [before, after] = ["validation_before", "validation_after"].map(|key| &report[key]);
        assert!(after["loss"].as_f64() < before["loss"].as_f64(), "{name}: {report}");
        assert!(after[figure].as_f64().unwrap() > before[figure].as_f64().unwrap(), "{name}, {figure}: {report}");

        folder.succeeds(&format!("{command} --steps 5 --out parts"));
        folder.succeeds(&format!("{command} --steps 12 --out parts --resume"));
        let file = if name == "full" { "model.safetensors" } else { "adapter_model.safetensors" };
        assert_eq!(folder.read(&format!("parts/{file}")), folder.read(&format!("{name}/{file}")), "{name}");
        std::fs::remove_dir_all(folder.path("parts")).unwrap();
    }
    // Where nothing was learnt yet, the policy is its reference.
    let first = &lines(&folder, "sigmoid/metrics.jsonl")[0];
    assert_eq!((first["rewards/chosen"].as_f64(), first["rewards/margins"].as_f64()), (Some(0.0), Some(0.0)));
}

#[test]
fn scores_are_those_of_the_last_real_token_by_any_method_and_batch() {
    let folder = Folder::pretrained();
    pairs(&folder);
    let ranked = |at: usize| json!({"prompt": BEGINS[at], "answers": [" mat.", " mat and the hill.", " tree."], "more": at});
    folder.write_rows("ranked.jsonl", &(0..4).map(ranked).collect::<Vec<_>>());
    for (name, options) in [
        ("lora", "--method lora"),
        ("prefix", "--method prefix --virtual-tokens 2"),
        ("ia3", "--method ia3"),
        ("full", "--method full"),
    ] {
        folder.succeeds(&format!("reward {OPTIONS} --data pairs.jsonl ranked.jsonl {options} --steps 3 --out {name}"));
        let model = if name == "full" { "--model full".into() } else { format!("--model model --adapter {name}") };
        let score = |batch: usize| {
            let text = folder.succeeds(&format!("score {model} --data ranked.jsonl --batch-size {batch} --device cpu"));
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
        };
        let (one, all) = (score(1), score(8));
        for (one, all) in one.iter().zip(&all) {
            assert_eq!(one["more"], all["more"]);
            for (one, all) in one["scores"].as_array().unwrap().iter().zip(all["scores"].as_array().unwrap()) {
                let (one, all) = (one.as_f64().unwrap(), all.as_f64().unwrap());
                // Rows of other lengths beside it are summed in another order.
                assert!((one - all).abs() < 1e-5 * (1.0 + one.abs()), "{name}: {one} alone, {all} among others");
            }
        }
        // It gives scores, and no texts.
        let generate = folder.run(&format!("generate {model} --prompt The --device cpu"));
        assert!(generate.code == Some(1) && generate.stderr.contains("reward model"), "{}", generate.stderr);
    }
    let config = folder.json("full/config.json");
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
    let config = folder.json("lora/adapter_config.json");
    assert_eq!((&config["task_type"], &config["modules_to_save"]), (&json!("SEQ_CLS"), &json!(["score"])));
}

#[test]
fn rows_that_say_nothing_are_refused_or_left_out() {
    let folder = Folder::pretrained();
    for (rows, expected) in [
        (vec![json!({"prompt": "The", "chosen": " cat"})], "rows.jsonl:1: a row of unknown form"),
        (vec![json!({"prompt": "The", "chosen": " cat", "rejected": null})], "rows.jsonl:1: `rejected` is null"),
        (
            vec![json!({"prompt": "The", "answers": [" cat"]})],
            "rows.jsonl:1: `answers` is [\" cat\"]; expected a list of at least two",
        ),
        (vec![json!({"prompt": "The", "chosen": " cat", "rejected": " cat"})], "1 left out since their answers are the same"),
        (
            vec![json!({"prompt": "The", "chosen": " cat", "rejected": " dog", "margin": "much"})],
            "rows.jsonl:1: `margin` is \"much\"",
        ),
        (vec![json!({"prompt": "The", "completion": " cat"})], "expected `chosen` and `rejected`"),
    ] {
        folder.write_rows("rows.jsonl", &rows);
        let run = folder.run("dpo --model model --data rows.jsonl --validation 0 --out out --device cpu");
        assert!(run.code == Some(1) && run.stderr.contains(expected), "{rows:?}: {}", run.stderr);
    }
    folder.write_rows("rows.jsonl", &[json!({"prompt": "The", "completion": " cat", "label": "so so"})]);
    let run = folder.run("kto --model model --data rows.jsonl --validation 0 --out out --device cpu");
    assert!(run.code == Some(1) && run.stderr.contains("`label` is \"so so\"; expected true or false"), "{}", run.stderr);
    // An answer without a word still ends.
    folder.write_rows("rows.jsonl", &[json!({"prompt": "The", "chosen": "", "rejected": " dog ran"})]);
    folder.succeeds("dpo --model model --data rows.jsonl --validation 0 --out empty --steps 1 --device cpu");
}
