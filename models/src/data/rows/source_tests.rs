//! Files of every kind, and what is none.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::tests::read_bytes;
use super::*;

const ROW: &str = r#"{"text": "a"}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 0).unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)).unwrap()
}

/// The lines and texts of a file of rows with `text`.
#[track_caller]
fn texts(name: &str, bytes: &[u8]) -> Vec<(usize, String)> {
    let dataset = read_bytes(name, bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = |row: Row| match row.content {
        Content::Text(text) => (row.line, text),
        other => panic!("{name}: {other:?}"),
    };
    dataset.rows.into_iter().map(text).collect()
}

#[track_caller]
fn refused(name: &str, bytes: &[u8], expected: &str) {
    let Err(error) = read_bytes(name, bytes) else { panic!("{name} was read; expected {expected:?}") };
    let message = error.to_string();
    assert!(message.contains(name) && message.contains(expected), "expected {expected:?} in: {message}");
}

#[test]
fn a_kind_is_told_by_the_end_of_the_name_or_else_by_the_content() {
    let one = |line, text: &str| vec![(line, text.to_string())];
    for (names, content, expected) in [
        (&["d.jsonl", "d.json", "D.JSONL", "d.ndjson", "d", "d.data", "d.2024"][..], ROW, one(1, "a")),
        (&["d.json", "d.jsonl", "d"], "\n [\n{\"text\": \"a\"}]", one(3, "a")),
        (&["d.txt", "d.text", "d.md", "d.markdown"], "text\na\n", one(1, "text\na")),
        (&["d.csv", "d.tsv", "d.tab"], "text\na\n", one(2, "a")),
        (&["d.csv"], "id,text\r\n1,a\r\n", one(2, "a")),
        (&["d.tsv"], "id\ttext\n1\ta,b", one(2, "a,b")),
    ] {
        for name in names {
            for (end, bytes) in [("", content.into()), (".gz", gzip(content.as_bytes())), (".zst", zstd(content.as_bytes()))] {
                assert_eq!(texts(&format!("{name}{end}"), &bytes), expected, "{name}{end}");
            }
        }
    }
    let file = fixture("messages.parquet");
    for (name, bytes) in [
        ("d.parquet", file.clone()),
        ("d.pq", file.clone()),
        ("d", file.clone()),
        ("d.parquet.gz", gzip(&file)),
        ("d.parquet.zst", zstd(&file)),
    ] {
        let dataset = read_bytes(name, &bytes).unwrap();
        assert_eq!(dataset.files[0].to_string(), format!("{name}: 5 rows of messages"));
        let messages = vec![json!({"role": "user", "content": "Say 2."}), json!({"role": "assistant", "content": "2"})];
        assert_eq!(dataset.rows[2].content, Content::Conversation { messages, tools: None });
    }
    let dataset = read_bytes("d.parquet", &fixture("ids.parquet")).unwrap();
    assert_eq!(dataset.rows[0].content, Content::Ids { ids: vec![0, 1, 2], labels: vec![IGNORE, 1, 2] });
}

#[test]
fn what_is_no_known_kind_is_refused() {
    let names = "expected a name that ends in .jsonl, .json, .txt, .md, .csv, .tsv or .parquet, with .gz or .zst after it or not";
    for (name, bytes, found) in [
        ("d.xlsx", &b"PK\x03\x04..."[..], "a ZIP archive"),
        ("d.zip", b"PK\x03\x04...", "a ZIP archive"),
        ("d.pdf", b"%PDF-1.7", "a PDF"),
        ("d.bz2", b"BZh91AY&SY", "compressed by bzip2"),
        ("d.xz", b"\xfd7zXZ\0", "compressed by xz"),
        ("d.jsonl.bin", &gzip(ROW.as_bytes()), "compressed by gzip"),
        ("d.db", b"SQLite format 3\0", "an SQLite database"),
        ("d.arrow", b"ARROW1\0\0", "an Arrow file"),
        ("d.bin", b"\x00\x01\x02", "binary data"),
        ("d.dat", b"caf\xe9", "binary data"),
        ("d", b"Once upon a time", "text that is not JSON"),
        ("d.log", b"Once upon a time", "text that is not JSON"),
        ("d.yaml.gz", &gzip(b"text: a"), "text that is not JSON"),
    ] {
        refused(name, bytes, found);
        refused(name, bytes, names);
    }
    for (name, bytes, expected) in [
        (
            "d.txt",
            format!("\n{ROW}\n{ROW}\n").into_bytes(),
            "d.txt: JSON in a file named as plain text; expected a name that ends in .jsonl",
        ),
        ("d.md", ROW.into(), "JSON in a file named as plain text"),
        ("d.txt", format!("[\n{ROW}\n]").into_bytes(), "JSON in a file named as plain text"),
        ("d.txt.gz", gzip(ROW.as_bytes()), "JSON in a file named as plain text"),
        ("d.jsonl", gzip(ROW.as_bytes()), "a file compressed by gzip; expected text, or"),
        ("d.txt", b"PK\x03\x04".into(), "a ZIP archive"),
        ("d.csv", fixture("strings.parquet"), "a Parquet file; expected text, or"),
        ("d.parquet", ROW.into(), "d.parquet: Parquet: it does not begin with PAR1"),
        ("d.parquet", Vec::new(), "d.parquet: empty; expected at least one row"),
        ("d.jsonl", b"Once upon a time".into(), "d.jsonl:1: broken JSON at column 1"),
        ("d.json", b"text\na".into(), "d.json:1: broken JSON at column 2: expected ident"),
    ] {
        refused(name, &bytes, expected);
    }
    // Text may look like JSON where it begins.
    assert_eq!(texts("d.txt", b"[1] Once\n{\"a\": 1}\n").len(), 1);
    assert_eq!(texts("d.md", b"{\"a\": 1}\nis an object.\n").len(), 1);
}

#[test]
fn broken_compression_is_an_error() {
    let rows = format!("{ROW}\n").repeat(1000);
    for (name, codec, packed) in [("d.jsonl.gz", "gzip", gzip(rows.as_bytes())), ("d.jsonl.zst", "zstd", zstd(rows.as_bytes()))] {
        assert_eq!(texts(name, &packed).len(), 1000);
        // Members and frames may follow one another.
        assert_eq!(texts(name, &packed.repeat(2)).len(), 2000);
        for length in 1..packed.len() {
            refused(name, &packed[..length], &format!("{name}: broken {codec} data: "));
        }
        refused(name, rows.as_bytes(), &format!("broken {codec} data"));
        for index in 0..packed.len() {
            let mut packed = packed.clone();
            packed[index] ^= 0x55;
            let _ = read_bytes(name, &packed);
        }
    }
    // A skippable frame, as parallel compressors write one.
    let skipped = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd(ROW.as_bytes())].concat();
    assert_eq!(texts("d.jsonl.zst", &skipped).len(), 1);
    refused("d.jsonl.zst", &skipped[..9], "broken zstd data: incomplete frame");
}

#[test]
fn what_grows_past_its_bound_is_an_error() {
    let large = vec![b' '; 65 << 20];
    for (name, packed) in [("d.jsonl.gz", gzip(&large)), ("d.jsonl.zst", zstd(&large))] {
        refused(name, &packed, "more than 67108864 bytes come of it; expected at most 200 times its size, or 64 MiB");
    }
}

#[test]
fn what_is_no_regular_file_is_an_error_that_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| Dataset::open(&[path], &Columns::default()).unwrap_err().to_string();
    let message = error(folder.path());
    assert!(message.ends_with(": a folder; expected a file"), "{message}");
    if cfg!(unix) {
        assert_eq!(error(Path::new("/dev/null")), "/dev/null: a pipe, a device or a socket; expected a file");
        let pipe = folder.path().join("pipe.jsonl");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let message = error(&pipe);
        assert!(message.ends_with("pipe.jsonl: a pipe, a device or a socket; expected a file"), "{message}");
    }
}

#[test]
fn text_of_another_encoding_is_an_error() {
    for name in ["d.jsonl", "d.txt", "d.csv"] {
        refused(name, b"\xff\xfe{\0\"\0", ": UTF-16; expected text in UTF-8");
        refused(name, b"\xfe\xff\0{\0\"", ": UTF-16; expected text in UTF-8");
        refused(name, "{\0\"\0t\0".as_bytes(), ":1: a zero byte; expected text in UTF-8");
        refused(name, b"text\na\0b", ":2: a zero byte; expected text in UTF-8");
        refused(name, b"text\ncaf\xe9\n", ": line 2: byte 8 of the file, 0xe9, is not UTF-8; expected text in UTF-8");
    }
    for (name, text) in [("d.jsonl", "{\"text\": \"é\"}\r\n"), ("d.txt", "é\r\n"), ("d.csv", "text\r\né\r\n")] {
        assert_eq!(texts(name, format!("\u{FEFF}{text}").as_bytes())[0].1, "é", "{name}");
    }
}

#[test]
fn a_table_has_quoted_fields_over_lines_and_no_ragged_rows() {
    let text = "text,id\n\"a, \"\"b\"\"\nc\",1\r\n\r\n d ,2\n\"\",3\n5\" pipe,4";
    let expected = [(2, "a, \"b\"\nc"), (5, " d "), (6, ""), (7, "5\" pipe")];
    assert_eq!(texts("d.csv", text.as_bytes()), expected.map(|(line, text)| (line, text.to_string())));
    for (text, expected) in [
        ("", "d.csv: empty; expected at least one row"),
        ("text,id\n", "d.csv: empty; expected at least one row"),
        ("text,text\na,b", "d.csv:1: two columns `text`; expected names that differ"),
        ("text,id\na,1\n\nb", "d.csv:4: 1 field; expected 2, as in the first line"),
        ("text,id\n\"a\nb\",1,2", "d.csv:2: 3 fields; expected 2, as in the first line"),
        ("text\na\n\"b\nc\n", "d.csv:3: a quote is opened and never closed"),
        ("text\n\"a\nb\" c\n", "d.csv:3: more after a closing quote; expected the end of the field"),
        ("text;id\na;1", "d.csv:2: a row of unknown form, with the keys `text;id`"),
        ("messages\n[]", "d.csv:2: `messages` is \"[]\"; expected a list"),
    ] {
        refused("d.csv", text.as_bytes(), expected);
    }
}

#[test]
fn rows_at_the_edge_of_what_json_can_hold_are_read_or_named() {
    let long = "a".repeat(32 << 20);
    assert_eq!(texts("d.jsonl", json!({"text": &long}).to_string().as_bytes()), [(1, long.clone())]);
    let long = format!("{long}a");
    for row in [
        json!({"text": &long}),
        json!({"prompt": "", "completion": &long}),
        json!({"messages": [{"role": "assistant", "content": &long}]}),
        json!({"messages": [{"role": "assistant", "content": [{"type": "text", "text": &long}]}]}),
    ] {
        refused(
            "d.jsonl",
            format!("\n{row}").as_bytes(),
            "d.jsonl:2: a text of 33554433 bytes; expected at most 33554432 in a row",
        );
    }
    refused("d.txt", long.as_bytes(), "d.txt:1: a text of 33554433 bytes; expected at most 33554432 in a row");
    let deep = |depth| format!("{ROW}\n{{\"text\": \"b\", \"more\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(texts("d.jsonl", deep(100).as_bytes()).len(), 2);
    refused("d.jsonl", deep(1000).as_bytes(), "d.jsonl:2: broken JSON at column 149: recursion limit exceeded");
    for (row, expected) in [
        (r#"{"text": 3}"#, "d.jsonl:1: `text` is 3; expected text"),
        (r#"{"text": null}"#, "d.jsonl:1: `text` is null; expected text"),
        (r#"{"prompt": "p", "completion": 4.5}"#, "d.jsonl:1: `completion` is 4.5; expected text"),
        (r#"{"prompt": null, "completion": "c"}"#, "d.jsonl:1: `prompt` is null; expected text"),
        ("{}", "d.jsonl:1: a row of unknown form, with no keys"),
        ("", "d.jsonl: empty; expected at least one row"),
        ("{\"text\":\n\"a\"}", "d.jsonl:1: broken JSON at column 8: EOF while parsing a value; expected a whole row"),
    ] {
        refused("d.jsonl", row.as_bytes(), expected);
    }
    assert_eq!(texts("d.jsonl", br#"{"text": "\u0000"}"#), [(1, "\0".to_string())]);
}
