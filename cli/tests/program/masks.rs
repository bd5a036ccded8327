//! Which tokens carry loss: what is odd about them is said, and a row is shown as it is trained on.

use serde_json::json;

use crate::folder::Folder;

const TRAIN: &str = "sft --model model --steps 1 --device cpu --data";

fn chats() -> serde_json::Value {
    let says = |role: &str, content: &str| json!({"role": role, "content": content});
    json!({"messages": [says("user", "The cat"), says("assistant", "sat."), says("user", "The dog"), says("assistant", "ran.")]})
}

#[test]
fn a_run_whose_answers_never_end_says_so_before_its_first_step() {
    let folder = Folder::pretrained();
    folder.write_rows("chats.jsonl", &[chats()]);
    let turns = "{% for m in messages %}[{{ m.role }}] {{ m.content }}END{% endfor %}";
    folder.write("endless.jinja", turns.replace("END", ""));
    folder.write("ending.jinja", turns.replace("END", "{{ eos_token }}"));
    let said = |template: &str| {
        let run = folder.run(&format!("{TRAIN} chats.jsonl --validation 0 --out {template} --template {template}.jinja"));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr
    };
    let words = "no token that ends a text is learnt: expected `<|endoftext|>`, `<|im_end|>` in some row";
    let (endless, ending) = (said("endless"), said("ending"));
    assert!(endless.find(words).is_some_and(|at| at < endless.find("training 1/1").unwrap()), "{endless}");
    assert!(!ending.contains("no token that ends"), "{ending}");
}

#[test]
fn rows_without_a_token_to_learn_are_named_and_may_be_all_that_is_held_out() {
    let folder = Folder::new();
    let mut held_out = 0;
    for masked in 0..4 {
        let label = |row| if row == masked { -100 } else { 3 };
        let rows: Vec<_> = (0..4).map(|row| json!({"input_ids": [1, 2, 3], "labels": [-100, -100, label(row)]})).collect();
        folder.write_rows("few.jsonl", &rows);
        let run = folder.run(&format!("{TRAIN} few.jsonl --validation 1 --out out{masked}"));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let named = format!("1 left out for want of a token to learn (few.jsonl:{})", masked + 1);
        assert!(run.stderr.contains(&named), "{}", run.stderr);
        let without = run.stderr.contains("no validation, for want of a token to learn in what was held out for it: 1 row");
        assert_eq!(without, !run.stderr.contains("validation before"), "{}", run.stderr);
        held_out += u32::from(without);
    }
    assert_eq!(held_out, 1);
}

#[test]
fn a_row_is_shown_as_it_is_trained_on() {
    let folder = Folder::pretrained();
    folder.write_rows("chats.jsonl", &[json!({"messages": [{"role": "assistant", "content": "Yes."}]}), chats()]);
    let shown = |more: &str| folder.succeeds(&format!("tokenize --model model --data chats.jsonl --row 2 {more}"));
    let text = shown("");
    assert!(text.starts_with("chats.jsonl:2, example 1 of 1\n      1   <|im_start|>\n"), "{text}");
    // Both answers, each with the end of its turn.
    assert_eq!(text.matches(" * <|im_end|>\n").count(), 2, "{text}");
    let learnt = text.matches(" * ").count();
    assert!(text.ends_with(&format!(" tokens, {learnt} of them (*) with loss\n")), "{text}");
    assert_eq!(shown("--last-turn-only").matches(" * <|im_end|>\n").count(), 1);
    assert_eq!(shown("--max-length 5").lines().count(), 7);

    let report = folder.reports("tokenize --model model --data chats.jsonl --row 2 --json");
    let example = &report["examples"][0];
    let (ids, labels) = (example["ids"].as_array().unwrap(), example["labels"].as_array().unwrap());
    assert_eq!((ids.len(), &report["row"]), (example["pieces"].as_array().unwrap().len(), &json!("chats.jsonl:2")));
    assert!(ids.iter().zip(labels).all(|(id, label)| label == id || *label == -100), "{report}");
    assert_eq!(labels.iter().filter(|label| **label != -100).count(), learnt);
    // What is shown is what is trained on.
    folder.write_rows("second.jsonl", &[chats()]);
    folder.write_rows("ids.jsonl", &[json!({"input_ids": ids, "labels": labels})]);
    let evaluate = |data: &str| folder.reports(&format!("eval --model model --data {data} --device cpu --json"));
    assert_eq!(evaluate("second.jsonl"), evaluate("ids.jsonl"));

    folder.write_rows("renamed.jsonl", &[json!({"question": "The cat", "answer": " sat."})]);
    let renamed = folder.succeeds("tokenize --model model --data renamed.jsonl --columns prompt=question,completion=answer");
    assert!(renamed.contains(" * <|endoftext|>\n"), "{renamed}");
    folder.fails("tokenize --model model --data chats.jsonl --row 3", &["--row is 3, and chats.jsonl has 2 rows"]);
    folder.fails("tokenize --model model --data chats.jsonl --text x", &["--data", "cannot be used with", "--text"]);
    folder.fails("tokenize --model model --text x --row 1", &["--row", "cannot be used with", "--text"]);
}
