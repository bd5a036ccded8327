//! `generate --prompts`: rows that run together, each as it would alone.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::folder::Folder;

const GENERATE: &str = "generate --model model --device cpu --prompts";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

#[test]
fn rows_give_in_their_order_what_each_gives_alone() {
    let folder = Folder::pretrained();
    let messages = json!([{"role": "user", "content": "The sun"}]);
    folder.write_rows(
        "prompts.jsonl",
        &[
            json!({"prompt": "The cat", "max_new_tokens": 12}),
            json!({"prompt": "A bird sang in the tree. The", "max_new_tokens": 2, "temperature": 1.5}),
            json!({"messages": messages, "max_new_tokens": 5}),
            json!({"prompt": "The", "seed": 3, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.1, "max_new_tokens": 7}),
            json!({"prompt": "The dog", "temperature": 0, "stop": [" the"]}),
        ],
    );
    let together = folder.succeeds(&format!("{GENERATE} prompts.jsonl --seed 40"));
    for batch in [1, 2] {
        assert_eq!(folder.succeeds(&format!("{GENERATE} prompts.jsonl --seed 40 --batch {batch}")), together);
    }
    let rows = lines(&together);
    let keys: Vec<_> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["prompt", "text", "new_tokens", "finish_reason"]);
    assert_eq!(rows.iter().map(|row| row["prompt"].as_str()).collect::<Vec<_>>()[3..], [Some("The"), Some("The dog")]);
    assert_eq!(rows[2]["messages"], messages);
    assert_eq!(rows[1]["new_tokens"], 2);
    assert!(rows[4]["text"] == " in" && rows[4]["finish_reason"] == "stop", "{}", rows[4]);
    // Row 1 without a seed of its own draws from 40 + 1.
    let alone = ["generate", "--model", "model", "--device", "cpu", "--json", "--max-new-tokens", "2", "--seed", "41"];
    let more = ["--prompt", "A bird sang in the tree. The", "--temperature", "1.5"];
    let alone: Value = serde_json::from_str(&folder.succeeds_with(&[&alone[..], &more[..]].concat())).unwrap();
    assert_eq!(alone["text"], rows[1]["text"]);
    assert_eq!(alone["finish_reason"], rows[1]["finish_reason"]);

    assert_eq!(folder.succeeds(&format!("{GENERATE} prompts.jsonl --seed 40 --out answers.jsonl")), "");
    assert_eq!(folder.lines("answers.jsonl"), rows);
    folder.fails(&format!("{GENERATE} prompts.jsonl --out answers.jsonl"), &["answers.jsonl is there already"]);
    folder.succeeds(&format!("{GENERATE} prompts.jsonl --out answers.jsonl --overwrite --temperature 0"));
    folder.write("prompts.csv", "prompt,max_new_tokens,seed\nThe cat,3,\n\"The dog, he\",4,9\n");
    let rows = lines(&folder.succeeds(&format!("{GENERATE} prompts.csv")));
    assert_eq!(rows[1]["prompt"], "The dog, he");
    assert!(rows[1]["new_tokens"].as_u64().unwrap() <= 4, "{}", rows[1]);
}

#[test]
fn what_rows_cannot_ask_is_named_with_file_and_line() {
    let folder = Folder::pretrained();
    folder.set("model/config.json", json!({"max_position_embeddings": 64}));
    let good = r#"{"prompt": "The cat"}"#;
    let long = format!("{{\"prompt\": \"{}\"}}", "The cat sat. ".repeat(400));
    for (text, expected) in [
        ("", vec!["bad.jsonl: empty", "expected at least one row"]),
        ("{\"prompt\": \"The", vec!["bad.jsonl:1: broken JSON"]),
        ("[1]", vec!["bad.jsonl:1: 1; expected an object"]),
        (
            &format!("{good}\n{{\"prompt\": \"x\", \"messages\": []}}"),
            vec!["bad.jsonl:2: both `prompt` and `messages`; expected one of them"],
        ),
        (&format!("{good}\n{{\"seed\": 1}}"), vec!["bad.jsonl:2: neither `prompt` nor `messages`", "max_new_tokens"]),
        (r#"{"prompt": 3}"#, vec!["bad.jsonl:1: `prompt` is 3: expected a text"]),
        (r#"{"prompt": "x", "temprature": 1}"#, vec!["bad.jsonl:1: `temprature`", "expected no such key", "temperature"]),
        (r#"{"prompt": "x", "seed": -1}"#, vec!["bad.jsonl:1: `seed` is -1: expected a whole number from 0"]),
        (r#"{"prompt": "x", "temperature": "hot"}"#, vec!["bad.jsonl:1: `temperature` is \"hot\": expected a number from 0"]),
        (r#"{"prompt": "x", "top_p": 2}"#, vec!["bad.jsonl:1: `top_p` is 2", "up to 1"]),
        (r#"{"prompt": "x", "max_new_tokens": 0}"#, vec!["bad.jsonl:1: `max_new_tokens` is 0", "from 1"]),
        (r#"{"prompt": "x", "stop": [1]}"#, vec!["bad.jsonl:1: `stop` is [1]: expected a text, or a list of texts"]),
        (r#"{"messages": "Hi"}"#, vec!["bad.jsonl:1: \"Hi\"; expected a list"]),
        (&long, vec!["bad.jsonl:1: the prompt with a new token", "--beyond allows more"]),
    ] {
        folder.write("bad.jsonl", text);
        folder.fails(&format!("{GENERATE} bad.jsonl --out answers.jsonl"), &expected);
    }
    folder.write("text.txt", "Plain text.");
    folder.fails(&format!("{GENERATE} text.txt"), &["text.txt: plain text; expected rows of JSON, CSV, TSV or Parquet"]);
    folder.fails(&format!("{GENERATE} nowhere.jsonl"), &["nowhere.jsonl", "No such file"]);
    folder.fails("generate --model model --prompt x --batch 4", &["--batch", "cannot be used with"]);
    folder.fails(&format!("{GENERATE} text.txt --batch 0"), &["expected a whole number from 1"]);
    assert!(!folder.path("answers.jsonl").exists());
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_with_the_rows_that_are_done() {
    let folder = Folder::pretrained();
    // Long enough to be met in the middle, whatever else the machine does.
    let rows: Vec<Value> = (0..2000).map(|seed| json!({"prompt": "The", "max_new_tokens": 20, "seed": seed})).collect();
    folder.write_rows("prompts.jsonl", &rows);
    let arguments = format!("{GENERATE} prompts.jsonl");
    let mut command = folder.command(&arguments.split_whitespace().collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    stdout.read_line(&mut printed).unwrap();
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    stdout.read_to_string(&mut printed).unwrap();
    let run = crate::folder::Run::new(child.wait_with_output().unwrap());
    let rows = lines(&printed);
    assert!((1..2000).contains(&rows.len()), "{}", rows.len());
    run.failed(&["finishing this token; again to quit", &format!("stopped with {} of 2000 rows", rows.len())]);
    assert_eq!(run.code, Some(130));
    let reason = |row: &Value| row["finish_reason"].as_str().unwrap().to_string();
    assert!(rows.iter().map(reason).all(|reason| ["stop", "length", "interrupted"].contains(&&*reason)));
}
