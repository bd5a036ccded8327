//! Ways of tuning side by side.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::folder::{Folder, Run};

const COMPARE: &str = "compare --methods lora,ia3,head --model model --data choices.jsonl --steps 3 --validation 4 --batch-size 4 \
     --rank 4 --device cpu --json --out out";

/// A folder with a pretrained model and rows that choose from two completions.
fn folder() -> Folder {
    let folder = Folder::pretrained();
    let row =
        |row: usize| json!({"prompt": format!("The {row}"), "completion": if row.is_multiple_of(2) { "cat" } else { "dog" }});
    folder.write_rows("choices.jsonl", &(0..16).map(row).collect::<Vec<_>>());
    folder
}

fn means(report: &Value, key: &str) -> Vec<f64> {
    let methods = report["methods"].as_array().unwrap().iter();
    methods.map(|method| method[key]["mean"].as_f64().unwrap_or_else(|| panic!("{key}: {method}"))).collect()
}

#[test]
fn every_method_has_its_row_and_no_run_is_made_twice() {
    let folder = folder();
    let report = folder.reports(COMPARE);
    let methods: Vec<&str> = report["methods"].as_array().unwrap().iter().map(|row| row["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["lora", "ia3", "head"]);
    for key in ["validation_loss", "token_accuracy", "trained_parameters", "peak_tensor_bytes", "tokens_per_second", "seconds"] {
        assert!(means(&report, key).iter().all(|value| value.is_finite() && *value >= 0.0), "{key}");
    }
    // All begin as the model is, with the same batch.
    for key in ["validation_loss_before", "choice_accuracy_before"] {
        assert!(means(&report, key).windows(2).all(|pair| (pair[0] - pair[1]).abs() < 1e-5), "{key}: {report}");
    }
    let first = |run: usize| report["runs"][run]["losses"][0][1].as_f64().unwrap();
    assert!((first(0) - first(1)).abs() < 1e-5 && (first(0) - first(2)).abs() < 1e-5, "{report}");
    // Of four rows.
    assert!(means(&report, "choice_accuracy").iter().all(|share| [0.0, 0.25, 0.5, 0.75, 1.0].contains(share)));
    assert_eq!(folder.names("out"), ["compare.html", "compare.json", "head", "ia3", "lora"]);
    let page = String::from_utf8(folder.read("out/compare.html")).unwrap();
    assert!(page.matches("<svg").count() == 2 && methods.iter().all(|name| page.contains(name)), "{page}");
    folder.succeeds("eval --model model --adapter out/lora --data choices.jsonl --device cpu");

    let before = folder.contents("out/lora");
    let run = folder.run(COMPARE);
    assert_eq!(run.stderr.matches("made before").count(), 3, "{}", run.stderr);
    let again: Value = serde_json::from_str(&run.stdout).unwrap();
    for key in ["validation_loss_before", "validation_loss", "choice_accuracy", "seconds"] {
        // JSON's reader may round the last bit.
        assert!(means(&again, key).iter().zip(means(&report, key)).all(|(now, then)| (now - then).abs() < 1e-12), "{key}");
    }
    assert!(folder.contents("out/lora") == before);

    std::fs::remove_dir_all(folder.path("out/ia3")).unwrap();
    let run = folder.run(COMPARE);
    assert_eq!(run.stderr.matches("made before").count(), 2, "{}", run.stderr);
    assert_eq!(means(&serde_json::from_str(&run.stdout).unwrap(), "validation_loss"), means(&report, "validation_loss"));

    // Other options are another comparison.
    folder.fails(&COMPARE.replace("--rank 4", "--rank 2"), &["out/lora", "`rank` 4, and now it is 2"]);
    let report = folder.reports(&format!("{} --overwrite", COMPARE.replace("--rank 4", "--rank 2")));
    assert_eq!(report["methods"].as_array().unwrap().len(), 3);
}

#[test]
fn several_seeds_are_a_mean_and_a_deviation() {
    let folder = folder();
    let report =
        folder.reports(&COMPARE.replace("lora,ia3,head", "dora,prompt --seeds 2 --virtual-tokens 3 --learning-rate dora=0.01"));
    assert_eq!(folder.names("out"), ["compare.html", "compare.json", "dora-0", "dora-1", "prompt-0", "prompt-1"]);
    for (row, method) in report["methods"].as_array().unwrap().iter().enumerate() {
        let losses = [0, 1].map(|seed| report["runs"][2 * row + seed]["figures"]["validation_loss"].as_f64().unwrap());
        let spread = &method["validation_loss"];
        assert!((spread["mean"].as_f64().unwrap() - (losses[0] + losses[1]) / 2.0).abs() < 1e-12, "{method}");
        // Of two values: their distance over the root of two.
        let deviation = (losses[0] - losses[1]).abs() / 2f64.sqrt();
        assert!((spread["deviation"].as_f64().unwrap() - deviation).abs() < 1e-12, "{method}");
    }
    assert_eq!(report["methods"][0]["learning_rate"]["mean"], 0.01);
}

#[test]
#[cfg(unix)]
fn an_interrupted_comparison_goes_on_where_it_was() {
    let folder = folder();
    let command = COMPARE.replace("--steps 3", "--steps 60 --schedule constant");
    let mut child = folder.command(&command.split_whitespace().collect::<Vec<_>>());
    let child = child.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while std::fs::metadata(folder.path("out/ia3/metrics.jsonl")).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step was made");
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let run = Run::new(child.wait_with_output().unwrap());
    run.failed(&["stopped in out/", "the same command goes on there"]);
    assert_eq!(run.code, Some(130));

    let again = folder.run(&command);
    assert!(again.stderr.contains("out/lora: made before"), "{}", again.stderr);
    let report: Value = serde_json::from_str(&again.stdout).unwrap();
    assert!(report["runs"].as_array().unwrap().iter().all(|run| run["losses"].as_array().unwrap().len() == 60));
}

#[test]
fn what_cannot_be_compared_is_named() {
    let folder = folder();
    for (from, to, expected) in [
        ("ia3", "ia4", vec!["ia4", "lora", "dora", "p-tuning", "head"]),
        ("--rank 4", "--virtual-tokens 4", vec!["--virtual-tokens is of none of the methods that are compared, lora, ia3, head"]),
        ("--rank 4", "--learning-rate full=1e-3", vec!["for full too, which is not compared", "lora, ia3, head"]),
        ("--rank 4", "--learning-rate lora=0", vec!["expected a number above 0"]),
        ("--rank 4", "--seeds 0", vec!["--seeds"]),
        ("choices.jsonl", "nowhere.jsonl", vec!["nowhere.jsonl"]),
        ("--out out", "--out model", vec!["model holds", "expected a new folder, or that of a comparison"]),
    ] {
        folder.fails(&COMPARE.replace(from, to), &expected);
        assert!(folder.names("out").is_empty(), "{to}");
    }
}
