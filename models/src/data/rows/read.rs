//! Cutting a file into rows, each with the line it begins on.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::columns::Columns;
use super::source::{Kind, Source};
use super::{Content, Format, parse, table};
use crate::data::parquet;
use crate::error::{Error, Result};
use crate::formats::tokenizer::END_OF_TEXT;
use crate::wording::listed;

/// Each with the line it begins on.
pub type Lined<T> = Vec<(usize, T)>;

/// The rows of a file, and the form they share. `seen` gathers the names of their columns.
pub fn rows(path: &Path, source: Source, columns: &Columns, seen: &mut BTreeSet<String>) -> Result<(Format, Lined<Content>)> {
    if let Some(template) = columns.template().filter(|_| source.kind == Kind::Text) {
        let expected = listed(template.fields().iter().chain([&"completion".to_string()]));
        let message = format!("{}: plain text; expected rows with {expected}, of which a template makes texts", path.display());
        return Err(Error::Data { message });
    }
    if source.kind == Kind::Text {
        return Ok((Format::Text, some(path, documents(&source.text(path)?))?));
    }
    parsed(path, values(path, source, |name| columns.reads(name))?, columns, seen)
}

/// The rows of a file that is no plain text, as it has them; of Parquet, with those of the columns that are wanted.
pub fn values(path: &Path, source: Source, wanted: impl Fn(&str) -> bool) -> Result<Lined<Value>> {
    let kind = source.kind;
    let values = if kind == Kind::Parquet {
        let rows = parquet::rows(source.bytes, wanted);
        let rows = rows.map_err(|message| Error::Data { message: format!("{}: Parquet: {message}", path.display()) })?;
        rows.into_iter().enumerate().map(|(index, row)| (index + 1, Value::Object(row))).collect()
    } else {
        let text = source.text(path)?;
        match kind {
            Kind::Table(separator) => {
                table::rows(&text, separator).map_err(|(line, message)| Error::Row { path: path.to_path_buf(), line, message })?
            }
            _ if text.trim_start().starts_with('[') => array(path, &text)?,
            _ => lines(path, &text)?,
        }
    };
    some(path, values)
}

fn some<T>(path: &Path, rows: Lined<T>) -> Result<Lined<T>> {
    if rows.is_empty() {
        let message = format!("{}: empty; expected at least one row", path.display());
        return Err(Error::Data { message });
    }
    Ok(rows)
}

fn parsed(path: &Path, values: Lined<Value>, columns: &Columns, seen: &mut BTreeSet<String>) -> Result<(Format, Lined<Content>)> {
    let error = |line, message| Error::Row { path: path.to_path_buf(), line, message };
    let mut rows = Vec::with_capacity(values.len());
    let mut first: Option<(usize, Format)> = None;
    for (line, mut value) in values {
        columns.rename(&mut value, seen);
        let format = parse::recognise(&value, columns);
        // A column that is not there tells more than what came of it.
        let format = format.map_err(|message| error(line, columns.missing(seen).unwrap_or(message)))?;
        let (first_line, expected) = *first.get_or_insert((line, format));
        if format != expected {
            let message = format!("a row of {format}; expected {expected}, as on line {first_line}");
            return Err(error(line, message));
        }
        let content = parse::content(format, &value, columns).map_err(|message| error(line, message))?;
        rows.push((line, content));
    }
    Ok((first.map_or(Format::Text, |(_, format)| format), rows))
}

fn lines(path: &Path, text: &str) -> Result<Lined<Value>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| match serde_json::from_str(line) {
            Ok(value) => Ok((index + 1, value)),
            Err(error) => Err(broken(path, index + 1, &error)),
        })
        .collect()
}

/// The elements of a JSON array, parsed one by one to know their lines.
fn array(path: &Path, text: &str) -> Result<Lined<Value>> {
    let mut values = Vec::new();
    let mut line = 1;
    let mut rest = text;
    let mut skip = |rest: &mut &str, bytes: usize| {
        line += rest[..bytes].matches('\n').count();
        *rest = &rest[bytes..];
        line
    };
    let skip_space = |text: &str| text.len() - text.trim_start().len();
    let unexpected = |line, rest: &str, expected: &str| {
        let found = rest.chars().next().map_or("the end".into(), |c| format!("`{c}`"));
        Err(Error::Row { path: path.to_path_buf(), line, message: format!("broken JSON: {found}; expected {expected}") })
    };
    let mut at = skip(&mut rest, skip_space(text));
    let mut opener = '[';
    loop {
        if !rest.starts_with(opener) {
            return unexpected(at, rest, "`,` or `]`");
        }
        let blank = 1 + skip_space(&rest[1..]);
        at = skip(&mut rest, blank);
        if opener == '[' && rest.starts_with(']') {
            break;
        }
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) => values.push((at, value)),
            Some(Err(error)) => return Err(broken(path, at + error.line() - 1, &error)),
            None => return unexpected(at, rest, "a row"),
        }
        let read = stream.byte_offset();
        skip(&mut rest, read);
        let blank = skip_space(rest);
        at = skip(&mut rest, blank);
        if rest.starts_with(']') {
            break;
        }
        opener = ',';
    }
    match rest[1..].trim() {
        "" => Ok(values),
        after => unexpected(at, after, "the end"),
    }
}

fn broken(path: &Path, line: usize, error: &serde_json::Error) -> Error {
    // serde's own sentence ends in a position that is relative to the row.
    let sentence = error.to_string();
    let sentence = sentence.split(" at line ").next().unwrap_or_default();
    let sentence = if error.is_eof() { format!("{sentence}; expected a whole row") } else { sentence.into() };
    Error::Row { path: path.to_path_buf(), line, message: format!("broken JSON at column {}: {sentence}", error.column()) }
}

/// The documents of a plain text: what lies between lines of [`END_OF_TEXT`], less blank lines around it.
fn documents(text: &str) -> Lined<Content> {
    let mut documents = Vec::new();
    let mut document = String::new();
    let mut first_line = 1;
    let mut end = |document: &mut String, line: usize| {
        let text = document.trim_matches(['\n', '\r']);
        if !text.trim().is_empty() {
            let blank = document.len() - document.trim_start_matches(['\n', '\r']).len();
            let blank_lines = document[..blank].matches('\n').count();
            documents.push((line + blank_lines, Content::Text(text.to_string())));
        }
        document.clear();
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim() == END_OF_TEXT {
            end(&mut document, first_line);
            first_line = index + 2;
        } else {
            document += line;
        }
    }
    end(&mut document, first_line);
    documents
}
