//! Rows of [Parquet](https://parquet.apache.org/docs/file-format/) files, as the Hugging Face hub has them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use crate::formats::sandbox::{Limits, Sandbox};
use crate::wording::{sentence, shortened};

/// Memory that the rows of any file may take.
const LEAST: usize = 1 << 30;
/// How many times its size those of a larger file may take.
const RATIO: usize = 200;
/// Far longer than the largest file takes; a broken one may have no end.
const TIME: Duration = Duration::from_secs(600);

/// The rows of a whole Parquet file. All columns are keys of every row; those not `wanted` are left unread, with `null` in their
/// place.
///
/// Whatever a file holds ends in rows or in an error: lengths in a broken file are believed by the reader, which is why it works
/// in a sandbox.
///
/// # Errors
/// A sentence, if the file is broken, has two columns of a name, holds what cannot be read, or takes more than it is allowed.
pub fn rows(file: Vec<u8>, wanted: impl Fn(&str) -> bool) -> Result<Vec<Map<String, Value>>, String> {
    if file.is_empty() {
        return Ok(Vec::new());
    }
    if !file.starts_with(b"PAR1") {
        return Err("it does not begin with PAR1".into());
    }
    let limits = Limits { bytes: file.len().saturating_mul(RATIO).max(LEAST), blocks: usize::MAX, time: TIME };
    let file = Bytes::from(file);
    let sandbox = Sandbox::new();
    let names = {
        let file = file.clone();
        sandbox.run(limits, move || names(file)).map_err(|limit| format!("it {limit}"))??
    };
    let wanted: Vec<bool> = names.iter().map(|name| wanted(name)).collect();
    sandbox.run(limits, move || read(file, &names, &wanted)).map_err(|limit| format!("it {limit}"))?
}

/// The columns, in the file's order.
fn names(file: Bytes) -> Result<Vec<String>, String> {
    let reader = SerializedFileReader::new(file).map_err(sentence)?;
    let fields = reader.metadata().file_metadata().schema_descr().root_schema().get_fields();
    let names: Vec<String> = fields.iter().map(|field| field.name().to_string()).collect();
    match names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        Some((_, twice)) => Err(format!("two columns `{}`; expected names that differ", shortened(twice, 60))),
        None => Ok(names),
    }
}

fn read(file: Bytes, names: &[String], wanted: &[bool]) -> Result<Vec<Map<String, Value>>, String> {
    let reader = SerializedFileReader::new(file).map_err(sentence)?;
    let root = reader.metadata().file_metadata().schema_descr().root_schema();
    let fields: Vec<Arc<Type>> =
        root.get_fields().iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(field, _)| field.clone()).collect();
    let projection = Type::group_type_builder(root.name()).with_fields(fields).build().map_err(sentence)?;
    let rows = reader.get_row_iter(Some(projection)).map_err(sentence)?;
    rows.enumerate()
        .map(|(index, row)| {
            let row = row.map_err(|error| format!("row {}: {}", index + 1, sentence(error)))?;
            let Value::Object(mut found) = row.to_json_value() else { return Err("a row that is no object".into()) };
            Ok(names.iter().map(|name| (name.clone(), found.remove(name).unwrap_or(Value::Null))).collect())
        })
        .collect()
}

#[cfg(test)]
#[path = "parquet_tests.rs"]
mod tests;
