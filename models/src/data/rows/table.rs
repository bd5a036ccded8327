//! Tables as text: fields that a character separates, quoted where they hold it, after
//! [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180). The first line names the columns.
//!
//! Stricter than many readers, which take what follows a closing quote for part of the field, and a quote that is never closed
//! for one that ends with the file: either loses or changes rows without a word.

use std::collections::HashSet;

use serde_json::Value;

use super::read::Lined;
use crate::wording::{counted, shortened};

/// The line of a mistake, and a sentence.
type Mistake = (usize, String);

/// The rows of a table as objects of text, each with the line it begins on.
pub fn rows(text: &str, separator: char) -> Result<Lined<Value>, Mistake> {
    let mut reader = Reader { rest: text, line: 1, separator };
    let Some((line, names)) = reader.record()? else { return Ok(Vec::new()) };
    let mut distinct = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !distinct.insert(*name)) {
        return Err((line, format!("two columns `{}`; expected names that differ", shortened(twice, 60))));
    }
    let mut rows = Vec::new();
    while let Some((line, fields)) = reader.record()? {
        if fields.len() != names.len() {
            let message = format!("{}; expected {}, as in the first line", counted(fields.len(), "field"), names.len());
            return Err((line, message));
        }
        let fields = names.iter().cloned().zip(fields.into_iter().map(Value::String));
        rows.push((line, Value::Object(fields.collect())));
    }
    Ok(rows)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    separator: char,
}

impl Reader<'_> {
    /// The next record's fields and the line it begins on; lines with nothing on them are none.
    fn record(&mut self) -> Result<Option<(usize, Vec<String>)>, Mistake> {
        while self.line_break() {}
        if self.rest.is_empty() {
            return Ok(None);
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            fields.push(if self.rest.starts_with('"') { self.quoted()? } else { self.bare() });
            if self.rest.starts_with(self.separator) {
                self.rest = &self.rest[self.separator.len_utf8()..];
            } else if self.rest.is_empty() || self.line_break() {
                return Ok(Some((line, fields)));
            } else {
                let message = "more after a closing quote; expected the end of the field, and quotes inside it written twice";
                return Err((self.line, message.into()));
            }
        }
    }

    fn line_break(&mut self) -> bool {
        let rest = self.rest.strip_prefix('\n').or_else(|| self.rest.strip_prefix("\r\n"));
        self.line += usize::from(rest.is_some());
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn bare(&mut self) -> String {
        let end = self.rest.find([self.separator, '\n']).unwrap_or(self.rest.len());
        let end =
            if self.rest[end..].starts_with('\n') { self.rest[..end].strip_suffix('\r').map_or(end, str::len) } else { end };
        let (field, rest) = self.rest.split_at(end);
        self.rest = rest;
        field.into()
    }

    fn quoted(&mut self) -> Result<String, Mistake> {
        let opened = self.line;
        let mut field = String::new();
        self.rest = &self.rest[1..];
        loop {
            let end = self.rest.find('"').ok_or((opened, "a quote is opened and never closed".to_string()))?;
            field += &self.rest[..end];
            self.line += self.rest[..end].matches('\n').count();
            self.rest = &self.rest[end + 1..];
            if !self.rest.starts_with('"') {
                return Ok(field);
            }
            field.push('"');
            self.rest = &self.rest[1..];
        }
    }
}
