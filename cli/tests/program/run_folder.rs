//! Nothing that somebody has is overwritten, a run's folder has one writer, and a run is known by what it read.

use std::fs;
use std::time::{Duration, Instant};

use crate::folder::{Folder, TINY};

const LORA: &str = "sft --model model --data rows.jsonl --steps 2 --device cpu";

/// Runs what must be refused, and checks that the folder is as it was.
#[track_caller]
fn refused(folder: &Folder, kept: &str, command: &str, expected: &[&str]) {
    let before = folder.contents(kept);
    folder.fails(command, expected);
    assert!(folder.contents(kept) == before, "{command}: {:?}", folder.names(kept));
}

#[test]
fn a_model_is_never_replaced_by_what_is_trained() {
    let folder = Folder::new();
    folder.copy_fixture("llama", "other");
    folder.copy_fixture("bf16", "sharded");
    folder.copy_fixture("lora", "adapter");
    folder.write("text.txt", "Some text.");
    for more in ["", " --resume", " --overwrite"] {
        for method in ["full", "lora"] {
            let command = format!("{LORA} --method {method} --out model{more}");
            refused(&folder, "model", &command, &["--out is model, which is read", "choose another folder"]);
        }
    }
    for (out, first) in [("other", "config.json"), ("sharded", "config.json"), ("adapter", "adapter_config.json")] {
        let holds = format!("{out} is not empty: it holds {first}");
        for method in ["full", "lora"] {
            let command = format!("{LORA} --method {method} --out {out}");
            refused(&folder, out, &command, &[&holds, "expected a new or an empty folder", "--resume", "--overwrite"]);
            refused(&folder, out, &format!("{command} --resume"), &[&holds, "no run's own"]);
        }
        refused(&folder, out, &format!("pretrain --data text.txt --out {out} {TINY} --device cpu"), &[&holds]);
        refused(&folder, out, &format!("demo --device cpu --out {out}"), &[&holds]);
    }
    refused(&folder, "model", "merge --model model --adapter adapter --out model --device cpu", &["model, which is read"]);
    refused(
        &folder,
        "adapter",
        "merge --model model --adapter adapter --out adapter --device cpu --overwrite",
        &["which is read"],
    );
    refused(
        &folder,
        "other",
        "merge --model model --adapter adapter --out other --device cpu",
        &["other is not empty", "; --overwrite"],
    );
    folder.fails("merge --model model --adapter adapter --out rows.jsonl --device cpu", &["rows.jsonl"]);
}

#[test]
#[cfg(unix)]
fn another_name_of_the_model_is_the_model() {
    let folder = Folder::new();
    std::os::unix::fs::symlink(folder.path("model"), folder.path("link")).unwrap();
    for out in ["link", "model/", "./model", "model/../model"] {
        refused(&folder, "model", &format!("{LORA} --method full --out {out} --overwrite"), &["model, which is read"]);
    }
}

#[test]
fn what_wgtune_wrote_is_replaced_where_that_is_said_and_nothing_else_is() {
    let folder = Folder::new();
    folder.succeeds(&format!("{LORA} --out out --method full"));
    folder.write("out/model-00001-of-00002.safetensors", "of an older model");
    refused(&folder, "out", &format!("{LORA} --out out"), &["out is not empty", "--overwrite"]);
    folder.succeeds(&format!("{LORA} --out out --overwrite"));
    let written = [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint",
        "evaluations.jsonl",
        "metrics.jsonl",
        "run.lock",
        "run.toml",
        "tensorboard",
    ];
    assert_eq!(folder.names("out"), written);
    folder.succeeds("merge --model model --adapter out --out merged --device cpu");
    folder.succeeds("merge --model model --adapter out --out merged --device cpu --overwrite");
    folder.write("out/notes.txt", "mine");
    folder.write("merged/notes.txt", "mine");
    let nothing_of_ours = ["it holds notes.txt", "nothing that wgtune writes"];
    refused(&folder, "out", &format!("{LORA} --out out --overwrite"), &nothing_of_ours);
    let merge = "merge --model model --adapter out --out merged --device cpu --overwrite";
    refused(&folder, "merged", merge, &nothing_of_ours);
    folder.fails(&format!("{LORA} --out out --overwrite --resume"), &["--overwrite", "cannot be used with", "--resume"]);
}

#[test]
fn a_file_that_is_there_is_kept_unless_it_may_be_overwritten() {
    let folder = Folder::new();
    folder.write("mine", "mine");
    let commands = [
        "logits --model model --ids 1 --device cpu --out mine",
        "bench --filter add --device cpu --seconds 0.001 --report mine",
        &format!("{LORA} --out out --profile mine"),
    ];
    for command in commands {
        folder.fails(command, &["mine is there already", "--overwrite"]);
        assert_eq!(folder.read("mine"), b"mine", "{command}");
    }
    folder.succeeds(&format!("{} --overwrite", commands[0]));
    assert_ne!(folder.read("mine"), b"mine");
}

#[test]
fn a_folder_that_a_run_writes_is_closed_to_others() {
    let folder = Folder::new();
    let long = LORA.replace("--steps 2", "--steps 1000000 --save-every 0");
    let arguments = format!("{long} --out out");
    let mut child = folder.start(&arguments);
    let begun = Instant::now();
    while fs::metadata(folder.path("out/metrics.jsonl")).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step was made");
        std::thread::sleep(Duration::from_millis(1));
    }
    let second = folder.run(&format!("{arguments} --resume"));
    let third = folder.run(&format!("{LORA} --out out --overwrite"));
    child.kill().unwrap();
    child.wait().unwrap();
    second.failed(&["another run is writing out"]);
    third.failed(&["another run is writing out"]);
    folder.check_whole("out");
    folder.succeeds(&format!("{LORA} --out out --overwrite"));
}

#[test]
fn a_checkpoint_is_written_by_time_too() {
    let folder = Folder::new();
    let arguments = format!("{} --out out --save-every 0 --save-minutes 0.0001", LORA.replace("--steps 2", "--steps 1000000"));
    let mut child = folder.start(&arguments);
    let begun = Instant::now();
    while !folder.path("out/checkpoint/state.json").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    folder.check_whole("out");
}

#[test]
fn a_run_goes_on_with_its_model_wherever_that_lies() {
    let folder = Folder::new();
    let resumed =
        |model: &str| folder.run(&format!("{LORA} --out out --resume").replace("--model model", &format!("--model {model}")));
    folder.succeeds(&format!("{LORA} --out out"));
    folder.copy_fixture("llama", "moved/elsewhere");
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path("model"), folder.path("link")).unwrap();
    #[cfg(unix)]
    assert_eq!(resumed("link").code, Some(0));
    for model in ["model/", "./model", "moved/elsewhere", folder.path("model").to_str().unwrap()] {
        let run = resumed(model);
        assert_eq!(run.code, Some(0), "{model}: {}", run.stderr);
    }
    // One number of one norm is another: it is another model.
    let mut bytes = folder.read("moved/elsewhere/model.safetensors");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    folder.write("moved/elsewhere/model.safetensors", bytes);
    resumed("moved/elsewhere").failed(&["the run in out began with `model`", "resume with what it began with"]);
}

#[test]
fn resuming_with_another_option_names_it() {
    let folder = Folder::new();
    let train = format!("{LORA} --out out --learning-rate 0.00012345678901234567");
    folder.succeeds(&train);
    folder.write_rows("others.jsonl", &[serde_json::json!({"input_ids": [1, 2, 3]})]);
    for (command, expected) in [
        (format!("{train} --seed 1"), ["`seed` 0", "it is 1"]),
        (format!("{train} --batch-size 2"), ["`batch-size` 4", "it is 2"]),
        (format!("{train} --rank 4"), ["`rank` 8", "it is 4"]),
        (format!("{train} --schedule cosine"), ["`schedule` \"linear\"", "it is \"cosine\""]),
        (format!("{train} --method full"), ["`method` \"lora\"", "it is \"full\""]),
        (train.replace("--steps 2", "--steps 4"), ["`steps` 2", "it is 4"]),
        (train.replace("rows.jsonl", "others.jsonl"), ["`data`", "resume with what it began with"]),
    ] {
        refused(&folder, "out", &format!("{command} --resume"), &["out", expected[0], expected[1]]);
    }
    folder.succeeds(&format!("{train} --resume"));
    folder.write("out/checkpoint/state.json", "{");
    folder.fails(&format!("{train} --resume"), &["out/checkpoint/state.json:1:", "broken JSON"]);
}

#[test]
fn a_finished_run_goes_on_for_more_steps_where_its_schedule_does_not_depend_on_them() {
    let folder = Folder::new();
    let train = |steps: u32, out: &str| {
        format!("{LORA} --schedule constant --learning-rate 1e-2 --out {out}").replace("--steps 2", &format!("--steps {steps}"))
    };
    folder.succeeds(&train(6, "whole"));
    folder.succeeds(&train(3, "out"));
    let run = folder.run(&format!("{} --resume", train(6, "out")));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("changed: steps 3 -> 6") && run.stderr.contains("resumed after step 3 of 6"), "{}", run.stderr);
    assert!(folder.read("out/adapter_model.safetensors") == folder.read("whole/adapter_model.safetensors"));
    folder.fails(&format!("{} --resume", train(4, "out")), &["`steps` 6", "it is 4"]);
}
