//! Data, options, devices and folders that cannot be used: each is an error that names what was expected, and nothing is lost.

use std::fs;

use serde_json::json;

use crate::folder::Folder;

const TRAIN: &str = "sft --model model --out out --steps 2 --device cpu --data";

#[test]
fn data_that_cannot_be_read_is_named_with_its_line() {
    let folder = Folder::new();
    let row = r#"{"input_ids": [1, 2, 3]}"#;
    for (text, expected) in [
        (String::new(), vec!["bad.jsonl: empty", "expected at least one row"]),
        ("\n\n".into(), vec!["bad.jsonl: empty"]),
        ("[]".into(), vec!["bad.jsonl: empty"]),
        (format!("{row}\n{row}\n{{\"input_ids\": [1, 2\n{row}\n"), vec!["bad.jsonl:3: broken JSON"]),
        (
            format!("{row}\n{{\"question\": \"?\"}}\n"),
            vec!["bad.jsonl:2: a row of unknown form", "`question`", "expected one of", "prompt + completion"],
        ),
        (
            format!("{row}\n{{\"text\": \"x\"}}\n"),
            vec!["bad.jsonl:2: a row of plain text", "expected input_ids + labels, as on line 1"],
        ),
        (r#"{"input_ids": [1, 2], "labels": [1]}"#.into(), vec!["bad.jsonl:1: 1 `labels`", "expected as many as `input_ids`, 2"]),
        (r#"{"input_ids": "1 2"}"#.into(), vec!["bad.jsonl:1: `input_ids` is \"1 2\"", "expected a list of token ids"]),
        (
            format!("{row}\n{{\"input_ids\": [1, 64]}}\n"),
            vec!["bad.jsonl:2: token id 64", "expected below the model's `vocab_size`, 64"],
        ),
        (
            r#"{"input_ids": [1, 2], "labels": [-100, -100]}"#.into(),
            vec!["nothing to learn: 1 row", "1 left out for want of a token to learn"],
        ),
    ] {
        folder.write("bad.jsonl", text);
        folder.fails(&format!("{TRAIN} bad.jsonl"), &expected);
        folder.fails("eval --model model --data bad.jsonl --device cpu", &expected);
    }
    folder.write("bad.jsonl", [b'{', 0xff, 0xfe, b'}']);
    folder.fails(&format!("{TRAIN} bad.jsonl"), &["bad.jsonl: line 1: byte 1 of the file, 0xff, is not UTF-8"]);
    folder.fails(&format!("{TRAIN} rows.jsonl nowhere.jsonl"), &["nowhere.jsonl", "No such file"]);
    folder.fails(&format!("{TRAIN} model"), &["model: a folder; expected a file"]);
    folder.write("text.txt", "Plain text.");
    folder.fails(&format!("{TRAIN} text.txt"), &["model/tokenizer.json", "No such file"]);
    assert!(folder.names("out").is_empty());
}

#[test]
fn rows_past_the_length_are_cut_and_counted() {
    let folder = Folder::new();
    let long: Vec<u32> = (0..40).collect();
    folder.write_rows("rows.jsonl", &[json!({"input_ids": long}), json!({"input_ids": [1, 2, 3]})]);
    let run = folder.run(&format!("{TRAIN} rows.jsonl --max-length 16"));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("2 rows, 2 examples of 19 tokens, 17 of them trained; 1 cut at the length"), "{}", run.stderr);

    let labels: Vec<i64> = (0..40).map(|place| if place < 20 { -100 } else { place }).collect();
    folder.write_rows("rows.jsonl", &[json!({"input_ids": long, "labels": labels})]);
    let expected = ["nothing to learn", "1 cut at the length", "expected rows with a completion within the length"];
    folder.fails(&format!("{TRAIN} rows.jsonl --max-length 16 --overwrite"), &expected);
    folder.fails(&format!("{TRAIN} rows.jsonl --max-length 1"), &["--max-length", "a whole number from 2"]);
}

#[test]
fn prompts_must_be_of_the_vocabulary() {
    let folder = Folder::new();
    for command in ["generate", "logits"] {
        folder.fails(
            &format!("{command} --model model --ids 1,64 --device cpu"),
            &["token id 64 of the prompt", "expected ids below 64"],
        );
        folder.fails(&format!("{command} --model model --ids 1,x --device cpu"), &["--ids", "'x'"]);
        folder.fails(&format!("{command} --model model --device cpu"), &["required", "--ids"]);
    }
    folder.write("chat.json", r#"[{"role": "user"}]"#);
    folder.fails("tokenize --model model --messages chat.json", &["tokenizer.json"]);
}

#[test]
fn conversations_that_cannot_be_read_are_named() {
    let folder = Folder::pretrained();
    for (text, expected) in [
        ("[{", vec!["chat.json:1:", "broken JSON"]),
        ("{}", vec!["chat.json: {}; expected a list of objects with `role` and `content`"]),
        (r#"{"messages": [{"role": "user"}]}"#, vec!["chat.json: {\"role\":\"user\"}; expected a list of objects with `role`"]),
        (
            r#"[{"role": "user", "content": [{"type": "image"}]}]"#,
            vec!["chat.json: a part of the type `image`; expected parts of"],
        ),
    ] {
        folder.write("chat.json", text);
        folder.fails("tokenize --model model --messages chat.json", &expected);
    }
    folder.fails("tokenize --model model --messages nowhere.json", &["nowhere.json", "No such file"]);
    folder.fails("generate --model model --prompt= --device cpu", &["the prompt is empty"]);
}

#[test]
fn options_that_cannot_be_are_named_with_what_was_expected() {
    let folder = Folder::new();
    for (option, expected) in [
        ("--batch-size 0", "a whole number from 1"),
        ("--batch-size 18446744073709551615", "to 65536"),
        ("--accumulate 0", "a whole number from 1"),
        ("--accumulate 100000000000", "to 4096"),
        ("--max-length 18446744073709551615", "a whole number from 2"),
        ("--rank 18446744073709551615", "a whole number from 1"),
        ("--alpha NaN", "a number above 0"),
        ("--dropout 1", "from 0 to below 1"),
        ("--save-every -1", "a whole number from 0"),
        ("--save-minutes x", "a number from 0"),
        ("--targets q_proj,,v_proj", "names separated by commas"),
        ("--steps 0", "a whole number from 1"),
        ("--steps many", "a whole number from 1"),
        ("--learning-rate 0", "a number above 0"),
        ("--learning-rate NaN", "a number above 0"),
        ("--clip -1", "a number from 0"),
        ("--clip inf", "a number from 0"),
        ("--warmup -1", "a number from 0"),
        ("--weight-decay x", "a number from 0"),
        ("--schedule exponential", "constant, linear, cosine"),
        ("--method prompting", "lora, prompt, p-tuning"),
    ] {
        let (name, value) = option.split_once(' ').unwrap();
        let train = "sft --model model --data rows.jsonl --out out";
        folder.fails(&format!("{train} {name}={value}"), &[name, value, expected]);
        folder.fails(&format!("{train} {name} {value}"), &[name, value, expected]);
    }
    folder.fails(
        "sft --model model --data rows.jsonl --out out --steps 1 --epochs 1",
        &["--steps", "cannot be used with", "--epochs"],
    );
    folder.fails(
        "sft --model model --data rows.jsonl --out out --device cpu --validation 16",
        &["16 rows held out of 16: expected some to be left"],
    );
    folder.fails("sft --model model", &["required", "--data", "--out"]);
    for (option, expected) in [
        ("--max-new-tokens=0", "a whole number from 1"),
        ("--max-new-tokens=18446744073709551615", "to 16777216"),
        ("--temperature=-1", "a number from 0"),
        ("--temperature -1", "a number from 0"),
        ("--stop=", "a text of at least one character"),
        ("--top-p=0", "above 0 and up to 1"),
        ("--repetition-penalty=0", "above 0"),
    ] {
        folder.fails(&format!("generate --model model --ids 1 {option}"), &[option.split(['=', ' ']).next().unwrap(), expected]);
    }
    for (option, expected) in [
        ("--layers 0", "a whole number from 1"),
        ("--layers 18446744073709551615", "a whole number from 1 to 1024"),
        ("--vocab-size 100", "a whole number from 259"),
        ("--vocab-size 18446744073709551615", "a whole number from 259"),
        ("--hidden-size 100000000000", "to 65536"),
        ("--hidden-size 65536", "--hidden-size, --intermediate-size, --layers or --vocab-size"),
        ("--hidden-size 36", "expected heads of an even width"),
        ("--key-value-heads 3", "expected heads of an even width"),
    ] {
        folder.fails(&format!("pretrain --data rows.jsonl --out out {option}"), &[option.split(' ').next().unwrap(), expected]);
    }
    folder.fails("bench --tokens 18446744073709551615", &["--tokens", "a whole number from 1 to 16384"]);
    folder.fails("pretend", &["unrecognized subcommand", "pretrain"]);
    assert!(folder.names("out").is_empty());
}

#[test]
fn a_device_that_is_not_there_is_told_with_those_that_are() {
    let folder = Folder::new();
    for device in ["tpu", "gpu:no-such-adapter", "gpu:99", ""] {
        let command = ["sft", "--model", "model", "--data", "rows.jsonl", "--out", "out", "--device", device];
        folder.run_with(&command).failed(&[&format!("no device {device:?}"), "expected auto, cpu, gpu, or gpu:<name or index>"]);
    }
    assert!(folder.names("out").is_empty());
}

#[test]
fn an_out_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    // A file in the way stops the superuser too.
    for out in ["rows.jsonl", "rows.jsonl/out"] {
        folder.fails(&format!("sft --model model --data rows.jsonl --out {out} --device cpu"), &[out]);
    }
    folder.fails("logits --model model --ids 1 --out rows.jsonl/logits --device cpu", &["rows.jsonl"]);
    assert!(!folder.read("rows.jsonl").is_empty());
}

/// A limit on the size of files meets a write half-way, as a full disk does.
#[test]
#[cfg(unix)]
fn a_full_disk_is_an_error_and_leaves_whole_files() {
    let folder = Folder::new();
    let limited = |kilobytes: usize, arguments: &str| {
        let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" {arguments}");
        let command = std::process::Command::new("bash")
            .args(["-c", &script, env!("CARGO_BIN_EXE_wgtune")])
            .current_dir(folder.path(""))
            .output();
        crate::folder::Run::new(command.unwrap())
    };
    let train = "sft --model model --data rows.jsonl --out out --steps 12 --device cpu";

    // The metrics alone pass two kilobytes.
    limited(2, &format!("{train} --save-every 0")).failed(&["out/metrics.jsonl", "File too large"]);
    folder.check_whole("out");
    assert!(!folder.lines("out/metrics.jsonl").is_empty());
    assert_eq!(folder.names("out"), ["evaluations.jsonl", "metrics.jsonl", "run.lock", "run.toml", "tensorboard"]);

    // A checkpoint of LoRA's factors is there; one of the whole model does not fit.
    limited(64, &format!("{train} --overwrite --method full")).failed(&["out/.checkpoint.partial", "File too large"]);
    folder.check_whole("out");
    assert_eq!(folder.names("out"), ["evaluations.jsonl", "metrics.jsonl", "run.lock", "run.toml", "tensorboard"]);
    folder.succeeds(&format!("{} --overwrite", train.replace("--steps 12", "--steps 4")));
    let before = folder.contents("out/checkpoint");
    fs::remove_file(folder.path("out/adapter_model.safetensors")).unwrap();
    limited(4, &format!("{} --resume", train.replace("--steps 12", "--steps 4"))).failed(&["out/", "File too large"]);
    folder.check_whole("out");
    assert_eq!(folder.contents("out/checkpoint"), before);

    limited(4, "logits --model model --ids 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17 --out logits.safetensors --device cpu")
        .failed(&["logits.safetensors", "File too large"]);
    folder.succeeds(&format!("{} --resume", train.replace("--steps 12", "--steps 4")));
    limited(40, "merge --model model --adapter out --out merged --device cpu").failed(&["merged", "File too large"]);
    assert_eq!(folder.names(""), ["model", "out", "rows.jsonl"]);
}
