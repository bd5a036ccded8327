//! Rows of [Parquet](https://parquet.apache.org/docs/file-format/) files, as the Hugging Face hub has them.
//!
//! ```text
//! file --schema--> fields, columns --pages--> levels and values --records--> rows as JSON
//! ```
//!
//! Read here rather than by a crate, because whatever a file holds must end in rows or in an error: no panic, no allocation that
//! a length in a broken file asks for, and no more out of a small file than it is allowed.
//! Left out: encryption, lz4 and brotli, decimal numbers and old times, and the encoding that splits floating point numbers.

use std::collections::HashSet;

use serde_json::{Map, Value};

use self::records::Records;
use self::schema::{Field, Node};
use super::compressed::Allowance;

mod bytes;
mod encodings;
mod pages;
mod records;
mod schema;
mod thrift;

/// What a row, and every column of it, is counted as beside its values.
const CELL: usize = 32;

/// The rows of a whole Parquet file. All columns are keys of every row; those not `wanted` are left unread, with `null` in their
/// place.
///
/// # Errors
/// A sentence that names the column, if the file is broken, has two columns of a name, holds what cannot be read, or if more comes
/// of it than is allowed.
pub fn rows(file: &[u8], wanted: impl Fn(&str) -> bool, allowance: &mut Allowance) -> Result<Vec<Map<String, Value>>, String> {
    let schema = schema::read(file)?;
    let mut names = HashSet::new();
    if let Some(twice) = schema.fields.iter().find(|field| !names.insert(&field.name)) {
        return Err(format!("two columns `{}`; expected names that differ", twice.name));
    }
    let mut rows = Vec::new();
    for group in &schema.groups {
        let mut columns = Vec::new();
        for field in &schema.fields {
            if wanted(&field.name) {
                let named = |reason| format!("column `{}`: {reason}", field.name);
                leaves(field, &mut |leaf| {
                    columns.push(Some(pages::column(file, &group.chunks[columns.len()], &leaf, allowance)?.into()));
                    Ok(())
                })
                .map_err(named)?;
            } else {
                columns.extend(field.leaves.clone().map(|_| None));
            }
        }
        let mut records = Records(columns);
        for _ in 0..group.rows {
            allowance.spend(CELL * (1 + schema.fields.len()))?;
            let field = |field: &Field| {
                let value = records.next(field).map_err(|reason| format!("column `{}`: {reason}", field.name))?;
                Ok((field.name.clone(), value))
            };
            rows.push(schema.fields.iter().map(field).collect::<Result<_, String>>()?);
        }
        if !records.is_empty() {
            return Err(format!("a row group of more than {} rows, which its footer says", group.rows));
        }
    }
    Ok(rows)
}

/// Visits the leaves beneath a field, in the order of their columns.
fn leaves(field: &Field, visit: &mut impl FnMut(pages::Leaf) -> Result<(), String>) -> Result<(), String> {
    match &field.node {
        Node::Leaf(kind) => {
            visit(pages::Leaf { kind, definition_level: field.definition_level, repetition_level: field.repetition_level })
        }
        Node::Struct(fields) => fields.iter().try_for_each(|field| leaves(field, visit)),
        Node::Wrapped(inner) | Node::Map(inner) => leaves(inner, visit),
    }
}

#[cfg(test)]
mod tests;
