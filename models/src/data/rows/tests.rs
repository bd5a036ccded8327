use serde_json::json;

use super::*;

pub(super) fn read_bytes(name: &str, bytes: &[u8]) -> Result<Dataset> {
    read_with(name, bytes, &[])
}

fn read_with(name: &str, bytes: &[u8], columns: &[(&str, &str)]) -> Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let pairs = columns.iter().map(|(ours, theirs)| (ours.to_string(), theirs.to_string()));
    let read = Dataset::open(&[&path], &Columns::new(pairs.collect()).unwrap());
    // Messages are compared without the folder.
    let bare = |message: String| Error::Data { message: message.replace(&format!("{}/", folder.path().display()), "") };
    let mut dataset = read.map_err(|error| bare(error.to_string()))?;
    dataset.files[0].path = name.into();
    Ok(dataset)
}

fn read(name: &str, text: &str) -> Result<Dataset> {
    read_bytes(name, text.as_bytes())
}

fn one(row: Value) -> (Format, Content) {
    let mut dataset = read("d.jsonl", &row.to_string()).unwrap();
    (dataset.files[0].format, dataset.rows.remove(0).content)
}

fn error(name: &str, text: &str) -> String {
    read(name, text).unwrap_err().to_string()
}

fn says(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[test]
fn every_form_is_recognised_by_its_keys() {
    assert_eq!(
        one(json!({"prompt": "p", "completion": "c", "id": 3})),
        (Format::PromptCompletion, Content::Completion { prompt: "p".into(), completion: "c".into() })
    );
    let messages = vec![says("user", "u"), says("assistant", "a")];
    let conversation = Content::Conversation { messages: messages.clone(), tools: None };
    assert_eq!(one(json!({"messages": messages})), (Format::Messages, conversation));
    assert_eq!(
        one(json!({"prompt": [messages[0]], "completion": [messages[1]]})).1,
        Content::Exchange { messages, learnt_from: 1, tools: None }
    );
    assert_eq!(one(json!({"text": "t"})), (Format::Text, Content::Text("t".into())));
    assert_eq!(
        one(json!({"input_ids": [1, 2, 3], "labels": [-100, 2, 9]})),
        (Format::Ids, Content::Ids { ids: vec![1, 2, 3], labels: vec![IGNORE, 2, 9] })
    );
}

#[test]
fn alpaca_becomes_an_exchange() {
    let (format, content) = one(json!({
        "instruction": "Add.", "input": "1 2", "output": "3", "system": "S",
        "history": [["hi", "hello"]],
    }));
    let messages = vec![
        says("system", "S"),
        says("user", "hi"),
        says("assistant", "hello"),
        says("user", "Add.\n1 2"),
        says("assistant", "3"),
    ];
    assert_eq!(format, Format::Alpaca);
    assert_eq!(content, Content::Exchange { messages, learnt_from: 4, tools: None });
    let (_, content) = one(json!({"instruction": "Go.", "input": "", "output": "Gone."}));
    let messages = vec![says("user", "Go."), says("assistant", "Gone.")];
    assert_eq!(content, Content::Exchange { messages, learnt_from: 1, tools: None });
}

#[test]
fn share_gpt_becomes_a_conversation_with_calls_and_tools() {
    let (format, content) = one(json!({
        "system": "S", "tools": "[{\"name\": \"f\"}]",
        "conversations": [
            {"from": "human", "value": "u"},
            {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"},
            {"from": "observation", "value": "o"},
            {"from": "gpt", "value": "a"},
        ],
    }));
    let function = json!({"name": "f", "arguments": {}});
    let call = json!({"role": "assistant", "content": "",
        "tool_calls": [{"type": "function", "function": function}]});
    let messages = vec![says("system", "S"), says("user", "u"), call, says("tool", "o"), says("assistant", "a")];
    let tools = Some(json!([{"type": "function", "function": {"name": "f"}}]));
    assert_eq!(format, Format::ShareGpt);
    assert_eq!(content, Content::Conversation { messages, tools });
}

#[test]
fn plain_text_is_cut_into_documents() {
    let dataset = read("d.txt", "\n[one]\ntwo\n<|endoftext|>\n\n<|endoftext|>\r\n\nthree\n").unwrap();
    let rows: Vec<_> = dataset.rows.iter().map(|row| (row.line, row.content.clone())).collect();
    let text = |text: &str| Content::Text(text.into());
    assert_eq!(rows, [(2, text("[one]\ntwo")), (8, text("three"))]);
    assert_eq!(dataset.files[0].to_string(), "d.txt: 2 rows of plain text");
}

#[test]
fn arrays_and_lines_know_their_lines() {
    let rows = [(2, "a"), (4, "b")];
    for (name, text) in [
        ("d.json", "[\n{\"text\": \"a\"},\n\n{\"text\":\n\"b\"}]\n"),
        ("d.jsonl", "\u{FEFF}\n{\"text\": \"a\"}\r\n\n{\"text\": \"b\"}\n"),
    ] {
        let dataset = read(name, text).unwrap();
        let found: Vec<_> = dataset.rows.iter().map(|row| (row.line, row.content.clone())).collect();
        assert_eq!(found, rows.map(|(line, text)| (line, Content::Text(text.into()))), "{name}");
    }
}

#[test]
fn broken_json_names_its_line() {
    let message = error("d.jsonl", "{\"text\": \"a\"}\n\n{\"text\": }\n");
    assert!(message.starts_with("d.jsonl:3: broken JSON at column 10"), "{message}");
    let message = error("d.json", "[\n{\"text\": \"a\"},\n{\"text\":\n}]");
    assert!(message.starts_with("d.json:4: broken JSON"), "{message}");
    for (text, expected) in [
        ("[\n{\"text\": \"a\"}\n{}]", "d.json:3: broken JSON: `{`; expected `,` or `]`"),
        ("[\n{\"text\": \"a\"}\n", "d.json:3: broken JSON: the end; expected `,` or `]`"),
        ("[{\"text\": \"a\"},", "d.json:1: broken JSON: the end; expected a row"),
        ("[{\"text\": \"a\"}] x", "d.json:1: broken JSON: `x`; expected the end"),
    ] {
        assert_eq!(error("d.json", text), expected);
    }
}

#[test]
fn rows_that_cannot_be_used_say_why() {
    let cases = [
        (json!({"question": "q", "answer": "a"}), "with the keys `question`, `answer`; expected one of: input_ids"),
        (json!({"prompt": "q"}), "with the keys `prompt`"),
        (json!({"prompt": "q", "completion": 3}), "`completion` is 3; expected text"),
        (json!({"prompt": [], "completion": "a"}), "`completion` is \"a\"; expected a list of messages"),
        (json!({"prompt": [], "completion": []}), "`completion` is empty"),
        (json!({"text": null}), "`text` is null; expected text"),
        (json!({"messages": [{"role": "user"}]}), "`messages` holds {\"role\":\"user\"}"),
        (json!({"messages": [says("user", "u")]}), "no message of `messages` is the assistant's"),
        (json!({"conversations": [{"from": "alien", "value": ""}]}), "`from` is \"alien\""),
        (json!({"conversations": [], "system": 3}), "`system` is 3"),
        (json!({"instruction": "i", "output": "o", "history": [["u"]]}), "`history` is [[\"u\"]]"),
        (json!({"messages": [says("assistant", "a")], "tools": "{"}), "`tools` is \"{\""),
        (json!({"input_ids": [1, -1]}), "`input_ids` is [1,-1]"),
        (json!({"input_ids": [1], "labels": []}), "0 `labels`; expected as many as `input_ids`, 1"),
    ];
    for (row, expected) in cases {
        let message = error("d.jsonl", &row.to_string());
        assert!(message.starts_with("d.jsonl:1: ") && message.contains(expected), "{message}");
    }
    let message = error("d.jsonl", "{\"text\": \"a\"}\n[1]");
    assert!(message.contains("d.jsonl:2: [1]; expected an object"), "{message}");
    let message = error("d.jsonl", "{\"text\": \"a\"}\n{\"input_ids\": [1]}");
    let expected = "d.jsonl:2: a row of input_ids + labels; expected plain text, as on line 1";
    assert_eq!(message, expected);
}

#[test]
fn nothing_to_read_is_an_error() {
    for (name, text) in [("d.jsonl", ""), ("d.json", "[ ]"), ("d.txt", "\n<|endoftext|>\n")] {
        assert_eq!(error(name, text), format!("{name}: empty; expected at least one row"));
    }
    assert!(Dataset::open(&[] as &[&Path], &Columns::default()).is_err());
    let message = Dataset::open(&["no/such/file.jsonl"], &Columns::default()).unwrap_err().to_string();
    assert!(message.contains("no/such/file.jsonl"), "{message}");
}

#[test]
fn columns_of_other_names_are_taken_for_those_of_a_form() {
    let completion =
        |prompt: &str, completion: &str| Content::Completion { prompt: prompt.into(), completion: completion.into() };
    let text = |text: &str| Content::Text(text.into());
    for (row, columns, expected) in [
        (json!({"q": "a", "s": "b", "id": 1}), &[("prompt", "q"), ("completion", "s")][..], completion("a", "b")),
        // What had the name makes way, and two may change places.
        (json!({"prompt": "x", "q": "a", "completion": "b"}), &[("prompt", "q")], completion("a", "b")),
        (json!({"prompt": "b", "completion": "a"}), &[("prompt", "completion"), ("completion", "prompt")], completion("a", "b")),
        (json!({"body": "a"}), &[("prompt", "body"), ("completion", "body")], completion("a", "a")),
        // A form that is asked for comes before one that tells more.
        (json!({"messages": [], "body": "t"}), &[("text", "body")], text("t")),
        (json!({"prompt": "t", "completion": "c"}), &[("text", "prompt")], text("t")),
    ] {
        let dataset = read_with("d.jsonl", row.to_string().as_bytes(), columns).unwrap();
        assert_eq!(dataset.rows[0].content, expected, "{row}");
    }
    let dataset = read_with("d.csv", b"q,s\na,b\n", &[("prompt", "q"), ("completion", "s")]).unwrap();
    assert_eq!(dataset.rows[0].content, completion("a", "b"));
}

#[test]
fn a_mapped_column_that_is_not_there_is_named_with_those_that_are() {
    for (name, text, columns, expected) in [
        (
            "d.jsonl",
            "{\"q\": \"a\", \"s\": \"b\"}",
            ("prompt", "p"),
            "`p`, which `prompt` is mapped to; the columns found: `q`, `s`",
        ),
        ("d.jsonl", "{\"text\": \"a\"}", ("system", "s"), "`s`, which `system` is mapped to; the columns found: `text`"),
        ("d.csv", "q,s\na,b", ("text", "t"), "`t`, which `text` is mapped to; the columns found: `q`, `s`"),
        ("d.txt", "text", ("text", "t"), "`t`, which `text` is mapped to; the columns found: none"),
    ] {
        let message = read_with(name, text.as_bytes(), &[columns]).unwrap_err().to_string();
        assert!(message.ends_with(&format!("no row has a column {expected}")), "{message}");
    }
    let error = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(ours, theirs)| (ours.to_string(), theirs.to_string()));
        Columns::new(pairs.collect()).unwrap_err()
    };
    let message = error(&[("promt", "q")]);
    assert!(message.starts_with("`promt` is a column of no form of rows; expected one of: text, prompt"), "{message}");
    assert_eq!(error(&[("text", "a"), ("text", "b")]), "`text` is mapped twice; expected one column");
    assert_eq!(error(&[("text", "")]), "`text` is mapped to nothing; expected the name of a column");
}

#[test]
fn content_in_parts_is_kept_if_all_are_text() {
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let messages = vec![json!({"role": "user", "content": parts}), says("assistant", "c")];
    assert_eq!(one(json!({"messages": messages})).1, Content::Conversation { messages: messages.clone(), tools: None });
    assert_eq!(
        one(json!({"prompt": [messages[0]], "completion": [messages[1]]})).1,
        Content::Exchange { messages, learnt_from: 1, tools: None }
    );
    for (part, expected) in [
        (
            json!({"type": "image", "image": "a.png"}),
            "`messages` holds a part of the type `image`; expected parts of the type `text`",
        ),
        (
            json!({"type": "text"}),
            "`messages` holds the part {\"type\":\"text\"}; expected parts of the type `text`, with `text`",
        ),
        (json!("a"), "`messages` holds the part \"a\"; expected parts"),
    ] {
        let row = json!({"messages": [{"role": "user", "content": [part]}, says("assistant", "c")]});
        let message = error("d.jsonl", &row.to_string());
        assert!(message.starts_with("d.jsonl:1: ") && message.contains(expected), "{message}");
    }
}
