use std::path::Path;

use serde_json::{Value, json};

use super::*;

const FILES: [&str; 4] = ["strings.parquet", "messages.parquet", "ids.parquet", "values.parquet"];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)).unwrap()
}

fn read(file: &[u8]) -> Result<Vec<Map<String, Value>>, String> {
    rows(file.to_vec(), |_| true)
}

#[test]
fn every_kind_of_value_codec_and_encoding_is_read_as_pyarrow_wrote_it() {
    let expected: Value = serde_json::from_slice(&fixture("expected.json")).unwrap();
    for name in FILES {
        let rows = read(&fixture(name)).unwrap();
        let expected = expected[name].as_array().unwrap();
        assert_eq!(rows.len(), expected.len(), "{name}");
        for (row, expected) in rows.into_iter().zip(expected) {
            assert_eq!(Value::Object(row), *expected, "{name}");
        }
    }
}

#[test]
fn columns_that_are_not_wanted_are_null() {
    let file = fixture("strings.parquet");
    let rows = rows(file, |name| name == "solution").unwrap();
    assert_eq!(Value::Object(rows[9].clone()), json!({"question": null, "solution": "18", "source": null}));
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    for name in FILES {
        let file = fixture(name);
        for length in (1..file.len()).step_by(5) {
            assert!(read(&file[..length]).is_err(), "{name} cut to {length}");
        }
        // The end is kept, so that the footer is found where the pages are not.
        for length in (1..file.len()).step_by(5) {
            let mut file = file.clone();
            file.drain(4..4 + length.min(file.len() - 8));
            let _ = read(&file);
        }
    }
}

#[test]
fn a_file_with_any_byte_changed_is_read_or_refused() {
    let mut refused = 0;
    for name in FILES {
        let file = fixture(name);
        for index in (0..file.len()).step_by(3) {
            for byte in [0, 0x80, 0xff, file[index] ^ 1] {
                let mut file = file.clone();
                file[index] = byte;
                refused += usize::from(read(&file).is_err());
            }
        }
    }
    assert!(refused > 500, "{refused}");
}
