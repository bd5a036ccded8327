//! Data in every kind of file gives the same numbers, and what is no known kind is refused before anything is written.

use serde_json::{Value, json};

use crate::folder::{Folder, TINY};

/// Rows of a prompt and a completion, under names that are no form's.
const ROWS: [(&str, &str); 4] = [
    ("Where sat the cat?", "On the mat."),
    ("What rose?", "The sun,\n\"over\" the hill."),
    ("Who sang?", "A bird."),
    ("Who ran?", "The dog."),
];
const NAMES: &str = "prompt=question,completion=solution";

fn objects() -> Vec<Value> {
    ROWS.map(|(question, solution)| json!({"question": question, "solution": solution, "id": 3})).into()
}

fn table(separator: &str) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let rows = ROWS.map(|(question, solution)| format!("3{separator}{question}{separator}{}\n", quoted(solution)));
    format!("id{separator}question{separator}solution\n{}", rows.concat())
}

#[test]
fn the_same_rows_in_any_file_give_the_same_numbers() {
    let folder = Folder::pretrained();
    folder.write_rows("rows.jsonl", &objects());
    folder.write("rows.json", Value::Array(objects()).to_string());
    folder.write("rows", Value::Array(objects()).to_string());
    folder.write("rows.csv", table(","));
    folder.write("windows.csv", format!("\u{FEFF}{}", table(",").replace("3,", "\"3\",")));
    folder.write("rows.tsv", table("\t"));
    let evaluate =
        |name: &str| folder.reports(&format!("eval --model model --data {name} --columns {NAMES} --device cpu --json"));
    let expected = evaluate("rows.jsonl");
    assert!(expected["trained_tokens"].as_u64().unwrap() > 10, "{expected}");
    for name in ["rows.json", "rows", "rows.csv", "windows.csv", "rows.tsv"] {
        assert_eq!(evaluate(name), expected, "{name}");
    }
    // The columns may be written with blanks, and the files mixed.
    let spaced =
        ["eval", "--model", "model", "--columns", " prompt = question , completion=solution", "--device", "cpu", "--json"];
    let text = folder.succeeds_with(&[&spaced[..], &["--data", "rows.csv"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    assert_eq!(
        evaluate("rows.csv rows.tsv")["trained_tokens"].as_u64(),
        expected["trained_tokens"].as_u64().map(|tokens| 2 * tokens)
    );
}

#[test]
fn parquet_trains_resumes_and_evaluates() {
    let folder = Folder::pretrained();
    folder.copy_fixture("data", "data");
    let train = "sft --model model --out out --steps 2 --device cpu --data data/strings.parquet --columns";
    let run = folder.run(&format!("{train} prompt=question,completion=solution"));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("data/strings.parquet: 12 rows of prompt + completion"), "{}", run.stderr);
    // Other columns are other data.
    folder.fails(&format!("{train} prompt=solution,completion=question --resume"), &["out", "`data`"]);
    folder.succeeds(&format!("{train} completion=solution,prompt=question --resume"));
    let evaluation = folder.reports("eval --model model --data data/messages.parquet --device cpu --json");
    assert!(evaluation["trained_tokens"].as_u64().unwrap() > 10, "{evaluation}");
}

#[test]
fn pretraining_takes_a_column_for_its_text() {
    let folder = Folder::new();
    folder
        .write("stories.csv", format!("story,prompt,completion\n{}", "\"Once upon a time, there was a cat.\",p,c\n".repeat(40)));
    folder.write("stories.txt", "Once upon a time, there was a cat.\n<|endoftext|>\n".repeat(40));
    for (out, data) in [("a", "stories.csv --columns text=story"), ("b", "stories.txt")] {
        folder.succeeds(&format!("pretrain --data {data} --out {out} {TINY} --steps 2 --device cpu"));
    }
    assert_eq!(folder.read("a/model.safetensors"), folder.read("b/model.safetensors"));
    folder
        .fails("pretrain --data stories.csv --out c --device cpu", &["stories.csv:2: expected plain text, or rows with `text`"]);
}

#[test]
fn columns_that_cannot_be_mapped_are_named() {
    let folder = Folder::pretrained();
    folder.write_rows("rows.jsonl", &objects());
    for command in
        ["sft --model model --out out --data rows.jsonl --device cpu", "eval --model model --data rows.jsonl --device cpu"]
    {
        for (columns, expected) in [
            ("promt=question", vec!["--columns", "`promt` is a column of no form of rows; expected one of: text, prompt"]),
            ("prompt", vec!["--columns", "`prompt`: expected OURS=THEIRS"]),
            ("prompt=", vec!["--columns", "`prompt` is mapped to nothing"]),
            ("prompt=question,prompt=id", vec!["--columns", "`prompt` is mapped twice"]),
            ("prompt=qestion,completion=solution", vec!["no row has a column `qestion`", "found: `id`, `question`, `solution`"]),
            ("prompt=question", vec!["rows.jsonl:1: a row of unknown form", "`prompt`", "`solution`"]),
            ("prompt=question,completion=id", vec!["rows.jsonl:1: `completion` is 3; expected text"]),
        ] {
            folder.fails(&format!("{command} --columns {columns}"), &expected);
        }
    }
    assert!(folder.names("out").is_empty());
}

#[test]
fn what_is_no_data_is_refused() {
    let folder = Folder::pretrained();
    folder.copy_fixture("data", "data");
    let cut = folder.read("data/messages.parquet");
    folder.write("cut.parquet", &cut[..cut.len() / 2]);
    folder.write("sheet.xlsx", b"PK\x03\x04\x14\0");
    folder.write("lines.txt", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
    folder.write("story", "Once upon a time");
    folder.write("rows.jsonl.gz", b"\x1f\x8b\x08\0");
    folder.write("utf-16.csv", b"\xff\xfet\0e\0x\0t\0\n\0");
    folder.write("ragged.csv", "text,id\na,1\nb\n");
    for (name, expected) in [
        ("cut.parquet", vec!["cut.parquet: Parquet: Parquet error: Invalid Parquet file"]),
        ("sheet.xlsx", vec!["sheet.xlsx: a ZIP archive", "expected a name that ends in .jsonl"]),
        ("lines.txt", vec!["lines.txt: JSON in a file named as plain text", ".jsonl"]),
        ("story", vec!["story: text that is not JSON", ".txt"]),
        ("rows.jsonl.gz", vec!["rows.jsonl.gz: broken gzip data"]),
        ("utf-16.csv", vec!["utf-16.csv: UTF-16; expected text in UTF-8"]),
        ("ragged.csv", vec!["ragged.csv:3: 1 field; expected 2, as in the first line"]),
        ("data/ids.parquet data/messages.parquet nowhere", vec!["nowhere: No such file"]),
    ] {
        for command in ["sft --model model --out out", "eval --model model", "pretrain --out out"] {
            folder.fails(&format!("{command} --device cpu --data {name}"), &expected);
        }
    }
    assert!(folder.names("out").is_empty());
}

#[test]
#[cfg(unix)]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = Folder::new();
    assert!(std::process::Command::new("mkfifo").arg(folder.path("pipe.jsonl")).status().unwrap().success());
    for data in ["pipe.jsonl", "/dev/null"] {
        folder.fails(
            &format!("sft --model model --out out --device cpu --data {data}"),
            &[&format!("{data}: a pipe, a device or a socket; expected a file")],
        );
    }
}

#[test]
fn a_conversation_in_parts_is_seen_as_its_text() {
    let folder = Folder::pretrained();
    folder.write("text.json", r#"[{"role": "user", "content": "The cat sat."}]"#);
    folder.write(
        "parts.json",
        r#"[{"role": "user", "content": [{"type": "text", "text": "The cat "}, {"type": "text", "text": "sat."}]}]"#,
    );
    let ids = |name: &str| folder.reports(&format!("tokenize --model model --json --messages {name}"));
    assert_eq!(ids("parts.json"), ids("text.json"));
}

#[test]
fn the_help_shows_a_row_of_every_form() {
    let folder = Folder::new();
    for command in ["sft", "eval", "pretrain"] {
        let help = folder.succeeds(&format!("{command} --help"));
        for form in [
            "\"completion\":",
            "\"messages\":",
            "\"instruction\":",
            "\"conversations\":",
            "\"text\":",
            "\"input_ids\":",
            ".parquet",
            "prompt,completion",
        ] {
            assert!(help.contains(form), "{command}: {form}");
        }
    }
}
