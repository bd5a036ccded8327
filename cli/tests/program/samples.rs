//! `--sample-prompt`: what the model says at every evaluation, on standard error and in `samples.jsonl`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::folder::{Folder, Run};

const PROMPTS: [&str; 4] = ["--sample-prompt", "The cat", "--sample-prompt", "A bird"];

fn run(folder: &Folder, arguments: &str, prompts: &[&str]) -> Run {
    folder.run_with(&arguments.split_whitespace().chain(prompts.iter().copied()).collect::<Vec<_>>())
}

/// The steps of the samples.
fn steps(folder: &Folder, out: &str) -> Vec<u64> {
    folder.lines(&format!("{out}/samples.jsonl")).iter().map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn the_model_is_heard_at_every_evaluation_and_says_what_it_says_elsewhere() {
    let folder = Folder::pretrained();
    let train = "sft --model model --data text.txt --method full --steps 7 --device cpu";
    let heard = run(&folder, &format!("{train} --validation 0 --eval-every 3 --out out"), &PROMPTS);
    assert_eq!(heard.code, Some(0), "{}", heard.stderr);
    assert_eq!(steps(&folder, "out"), [0, 0, 3, 3, 6, 6, 7, 7]);
    let lines = folder.lines("out/samples.jsonl");
    for line in &lines {
        let (prompt, text) = (line["prompt"].as_str().unwrap(), line["text"].as_str().unwrap());
        assert!(
            heard.stderr.contains(&format!("sample after step {}: {prompt:?} -> {text:?}", line["step"])),
            "{}",
            heard.stderr
        );
    }
    // What the trained model says by itself.
    for (line, prompt) in lines[6..].iter().zip(["The cat", "A bird"]) {
        let options = ["--max-new-tokens", "32", "--temperature", "0", "--json", "--device", "cpu"];
        let arguments = [&["generate", "--model", "out", "--prompt", prompt][..], &options].concat();
        let said: Value = serde_json::from_str(&folder.succeeds_with(&arguments)).unwrap();
        assert_eq!((&line["prompt"], &line["text"]), (&json!(prompt), &said["text"]));
    }
    // A run that is at its end hears nothing anew.
    let again = run(&folder, &format!("{train} --validation 0 --eval-every 3 --out out --resume"), &PROMPTS);
    assert_eq!((again.code, folder.lines("out/samples.jsonl")), (Some(0), lines));

    let new =
        run(&folder, &format!("pretrain --data text.txt --out new {} --steps 1 --device cpu", crate::folder::TINY), &PROMPTS);
    assert_eq!((new.code, steps(&folder, "new")), (Some(0), vec![0, 0, 1, 1]), "{}", new.stderr);
}

#[test]
fn samples_of_a_run_that_was_killed_have_no_doubles() {
    let folder = Folder::pretrained();
    let train = "sft --model model --data text.txt --steps 200 --batch-size 1 --save-every 7 --validation 2 --eval-every 4 \
                 --keep-last --device cpu";
    assert_eq!(run(&folder, &format!("{train} --out whole"), &PROMPTS).code, Some(0));
    let command = format!("{train} --out out --resume");
    for lines in [1, 30] {
        let arguments: Vec<&str> = command.split_whitespace().chain(PROMPTS).collect();
        let mut child = folder.command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let seen = || std::fs::read_to_string(folder.path("out/samples.jsonl")).map_or(0, |text| text.lines().count());
        while seen() < lines {
            assert!(begun.elapsed() < Duration::from_secs(60), "no sample was written");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(run(&folder, &command, &PROMPTS).code, Some(0));
    assert_eq!(folder.lines("out/samples.jsonl"), folder.lines("whole/samples.jsonl"));
}

#[test]
fn what_cannot_be_sampled_is_refused_before_any_work() {
    let folder = Folder::new();
    let refused = run(&folder, "sft --model model --data rows.jsonl --device cpu --out out", &PROMPTS);
    refused.failed(&["--sample-prompt needs a tokenizer", "model/tokenizer.json"]);
    assert!(folder.names("out").is_empty());
}
