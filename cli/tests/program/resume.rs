//! A run that was cut off and resumed comes to what an uninterrupted one comes to, bit for bit.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::evaluation::{UP_AND_DOWN, patterns};
use crate::folder::Folder;
use crate::kills::{check_same, survives_kills};

const LORA: &str = "sft --model model --data rows.jsonl --steps 40 --batch-size 2 --dropout 0.2 --targets all-linear --schedule cosine \
     --learning-rate 1e-2 --warmup 4 --save-every 2 --device cpu --seed 3";
const FULL: &str = "sft --model model --data rows.jsonl --method full --steps 24 --batch-size 1 --accumulate 3 --packing --max-length 32 \
     --weight-decay 0.1 --save-every 2 --device cpu --seed 4 --validation 2";

#[test]
fn lora_with_dropout_survives_ten_kills() {
    survives_kills(&Folder::new(), LORA, "adapter_model.safetensors", 10, 0.0..0.6);
}

#[test]
fn full_with_accumulation_and_packing_survives_ten_kills() {
    survives_kills(&Folder::new(), FULL, "model.safetensors", 10, 0.0..0.6);
}

#[test]
fn the_best_weights_and_patience_survive_ten_kills() {
    let folder = patterns();
    let command = format!("{UP_AND_DOWN} --save-every 2 --eval-every 3 --patience 4");
    survives_kills(&folder, &command, "adapter_model.safetensors", 10, 0.0..0.6);
    let state = folder.json("whole/checkpoint/state.json");
    assert!(state["best"]["step"].as_u64().unwrap() > 3 && state["step"] != state["best"]["step"], "{state}");
}

#[test]
#[cfg(unix)]
fn an_interrupt_writes_a_checkpoint_and_says_how_to_resume() {
    let folder = Folder::new();
    // Long enough to be met in the middle, whatever else the machine does.
    let command = LORA.replace("--save-every 2", "--save-every 0").replace("--steps 40", "--steps 1000");
    folder.succeeds(&format!("{command} --out whole"));
    let arguments = format!("{command} --out out");
    let child = folder
        .command(&arguments.split_whitespace().collect::<Vec<_>>())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while std::fs::metadata(folder.path("out/metrics.jsonl")).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step was made");
        std::thread::sleep(Duration::from_millis(1));
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let run = crate::folder::Run::new(child.wait_with_output().unwrap());
    run.failed(&["finishing this step; again to quit", "stopped after step", "of 1000", "the checkpoint is in out", "--resume"]);
    assert_eq!(run.code, Some(130));
    folder.check_whole("out");
    let step = folder.json("out/checkpoint/state.json")["step"].as_u64().unwrap();
    assert!((1..1000).contains(&step), "{step}");
    assert_eq!(folder.lines("out/metrics.jsonl").len() as u64, step);
    assert!(!folder.path("out/adapter_model.safetensors").exists());

    let run = folder.run(&format!("{arguments} --resume"));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("resumed after step {step} of 1000")), "{}", run.stderr);
    check_same(&folder, "out", "adapter_model.safetensors");
}

#[test]
fn a_run_goes_on_from_an_earlier_checkpoint_that_was_kept() {
    let folder = Folder::new();
    folder.succeeds(&format!("{LORA} --out whole"));
    let command = LORA.replace("--save-every 2", "--save-every 10");
    folder.succeeds(&format!("{command} --keep 3 --out run"));
    let kept = |out: &str| folder.names(out).into_iter().filter(|name| name.starts_with("checkpoint")).collect::<Vec<_>>();
    assert_eq!(kept("run"), ["checkpoint", "checkpoint-20", "checkpoint-30"]);
    std::fs::remove_dir_all(folder.path("run/checkpoint")).unwrap();
    std::fs::rename(folder.path("run/checkpoint-20"), folder.path("run/checkpoint")).unwrap();
    std::fs::remove_dir_all(folder.path("run/checkpoint-30")).unwrap();
    let said = folder.run(&format!("{command} --keep 2 --out run --resume"));
    assert!(said.stderr.contains("resumed after step 20 of 40"), "{}", said.stderr);
    assert_eq!(kept("run"), ["checkpoint", "checkpoint-30"]);
    check_same(&folder, "run", "adapter_model.safetensors");
}
