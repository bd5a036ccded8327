//! Rows of data files: what each holds is recognised by its keys, and said.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::IGNORE;
use super::template::Piece;
use crate::error::{Error, Result};
use crate::formats::json::abbreviated;
use crate::hash::xxh3;
use crate::wording::counted;

pub use self::columns::Columns;
use self::source::{Kind, Source};

mod columns;
mod judged;
mod parse;
mod read;
mod source;
mod table;

/// The forms that rows come in. A file holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// `input_ids`, and `labels` with -100 for tokens without loss: tokenised already.
    Ids,
    /// `messages`: a conversation of `role` and `content`, and `tools` perhaps.
    Messages,
    /// ShareGPT: `conversations` of `from` and `value`, and `system` and `tools` perhaps.
    ShareGpt,
    /// `prompt` and `completion`, both text or both messages.
    PromptCompletion,
    /// Alpaca: `instruction` and `output`, and `input`, `system` and `history` perhaps.
    Alpaca,
    /// `text`, or a plain text file.
    Text,
    /// The fields of a template, and `completion`.
    Fields,
    /// `chosen` and `rejected`, and `prompt` and `margin` perhaps; texts or messages.
    Preference,
    /// `prompt` and `answers`, the best first.
    Ranked,
    /// `prompt`, `completion` and `label`, which says whether it is good.
    Labelled,
    /// `prompt` alone, text or messages.
    Prompt,
}

/// A row, and where it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which of the data set's files it is from.
    pub file: usize,
    /// The line it begins on, from 1; of a Parquet file, the row.
    pub line: usize,
    /// What it holds.
    pub content: Content,
}

/// What a row holds, whatever its form was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Content {
    /// All of the text carries loss.
    Text(String),
    /// The completion carries loss.
    Completion {
        /// What it follows.
        prompt: String,
        /// What is learnt.
        completion: String,
    },
    /// The completion carries loss.
    Filled {
        /// What it follows, as a template makes it of the row's fields.
        prompt: Vec<Piece>,
        /// What is learnt.
        completion: String,
    },
    /// The messages from `learnt_from` on carry loss; the chat template makes them text.
    Exchange {
        /// Objects with `role` and `content`.
        messages: Vec<Value>,
        /// The first message of the completion.
        learnt_from: usize,
        /// A list of the tools that are offered.
        tools: Option<Value>,
    },
    /// Every message of the role `assistant` carries loss.
    Conversation {
        /// Objects with `role` and `content`.
        messages: Vec<Value>,
        /// A list of the tools that are offered.
        tools: Option<Value>,
    },
    /// Tokenised already.
    Ids {
        /// The tokens.
        ids: Vec<u32>,
        /// For every token, its id, or [`IGNORE`] if it carries no loss.
        labels: Vec<u32>,
    },
    /// Answers to one prompt, the best first; each is one of the contents that have a completion.
    Ranked {
        /// At least two.
        answers: Vec<Content>,
        /// By how much the scores of any two differ at least.
        margin: f64,
    },
    /// An answer that is good or not.
    Labelled {
        /// One of the contents that have a completion.
        answer: Box<Content>,
        /// Whether it is.
        is_good: bool,
    },
}

/// The rows of one or more files.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The files that were read, with what was found in each.
    pub files: Vec<DataFile>,
    /// All rows, in the files' order.
    pub rows: Vec<Row>,
}

/// One file of a data set: prints as what was recognised.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Where it is.
    pub path: PathBuf,
    /// The form of its rows.
    pub format: Format,
    /// How many they are.
    pub rows: usize,
}

/// Bytes of the longest text of a row: it is tokenised at once, which takes two hundred times as much memory.
const LONGEST_TEXT: usize = 32 << 20;

impl Content {
    /// Bytes of its text.
    fn length(&self) -> usize {
        let content = |message: &Value| match &message["content"] {
            Value::String(text) => text.len(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).map(str::len).sum(),
            _ => 0,
        };
        match self {
            Content::Text(text) => text.len(),
            Content::Completion { prompt, completion } => prompt.len() + completion.len(),
            Content::Filled { prompt, completion } => {
                let length = |piece: &Piece| if let Piece::Text(text) = piece { text.len() } else { 0 };
                prompt.iter().map(length).sum::<usize>() + completion.len()
            }
            Content::Exchange { messages, .. } | Content::Conversation { messages, .. } => messages.iter().map(content).sum(),
            Content::Ids { .. } => 0,
            Content::Ranked { answers, .. } => answers.iter().map(Content::length).sum(),
            Content::Labelled { answer, .. } => answer.length(),
        }
    }
}

impl Dataset {
    /// Reads files by the ends of their names, with `.gz` or `.zst` after them or not:
    ///
    /// - `.jsonl`, `.ndjson`, `.json`: an object a line, or an array of them;
    /// - `.csv`, `.tsv`, `.tab`: a table whose first line names its columns;
    /// - `.parquet`, `.pq`: the same, with values of all types;
    /// - `.txt`, `.text`, `.md`, `.markdown`: plain text, cut into documents at lines that hold
    ///   [`END_OF_TEXT`](crate::formats::tokenizer::END_OF_TEXT) alone.
    ///
    /// A file with another name is read if it begins as JSON or Parquet do. `columns` says which columns stand for which of
    /// the forms', and whether a template makes texts of all rows. A compressed file may grow to 64 MiB, and the rows of a Parquet file may take 1 GiB, or 200 times the
    /// file's size where that is more.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Row`] naming file and line for broken JSON and tables, a missing key, a wrong type, a
    /// form that is not known, a row of another form than the file's first, and a text of more than 32 MiB;
    /// [`Error::Data`] for a file of no known kind, one that is broken or grows past its bound, one without rows, and a
    /// mapped column that no row has.
    pub fn open(paths: &[impl AsRef<Path>], columns: &Columns) -> Result<Dataset> {
        let mut dataset = Dataset { files: Vec::new(), rows: Vec::new() };
        let mut seen = BTreeSet::new();
        for path in paths {
            let path = path.as_ref();
            dataset.add(path, Source::open(path)?, columns, &mut seen)?;
        }
        if dataset.files.is_empty() {
            let message = "no data file was named; expected at least one".into();
            return Err(Error::Data { message });
        }
        match columns.missing(&seen) {
            Some(message) => Err(Error::Data { message }),
            None => Ok(dataset),
        }
    }

    fn add(&mut self, path: &Path, source: Source, columns: &Columns, seen: &mut BTreeSet<String>) -> Result<()> {
        let file = self.files.len();
        let (format, rows) = read::rows(path, source, columns, seen)?;
        self.files.push(DataFile { path: path.to_path_buf(), format, rows: rows.len() });
        for (line, content) in rows {
            let row = Row { file, line, content };
            let length = row.content.length();
            if length > LONGEST_TEXT {
                let message = format!("a text of {length} bytes; expected at most {LONGEST_TEXT} in a row");
                return Err(self.error_at(&row, message));
            }
            self.rows.push(row);
        }
        Ok(())
    }

    /// A hash of what the rows hold, whatever files they came from.
    pub fn fingerprint(&self) -> String {
        xxh3(self.rows.iter().map(|row| serde_json::to_vec(&row.content).expect("plain data is JSON")))
    }

    /// The error that `message` is, at a row of this data set.
    pub fn error_at(&self, row: &Row, message: String) -> Error {
        Error::Row { path: self.files[row.file].path.clone(), line: row.line, message }
    }

    /// Where a row of this data set is, as `rows.jsonl:3`.
    pub fn place(&self, row: &Row) -> String {
        format!("{}:{}", self.files[row.file].path.display(), row.line)
    }
}

/// The rows of a file of any kind but plain text, as it has them, each with the line it begins on (of a Parquet file, the row).
///
/// # Errors
/// As [`Dataset::open`] says; [`Error::Row`] for a row that is no object, [`Error::Data`] for plain text.
pub fn objects(path: &Path) -> Result<Vec<(usize, Map<String, Value>)>> {
    let source = Source::open(path)?;
    if source.kind == Kind::Text {
        let message = format!("{}: plain text; expected rows of JSON, CSV, TSV or Parquet", path.display());
        return Err(Error::Data { message });
    }
    let object = |(line, value)| match value {
        Value::Object(row) => Ok((line, row)),
        other => {
            let message = format!("{}; expected an object", abbreviated(&other));
            Err(Error::Row { path: path.to_path_buf(), line, message })
        }
    };
    read::values(path, source, |_| true)?.into_iter().map(object).collect()
}

/// The messages of a conversation, from a list of objects with `role` and `content`, which is text or a list of parts of it.
///
/// # Errors
/// A sentence, for anything else, and for parts that are not text.
pub fn messages(list: &Value) -> std::result::Result<Vec<Value>, String> {
    parse::messages(list).map_err(|(found, expected)| match found {
        Some(found) => format!("{found}; expected {expected}"),
        None => format!("{}; expected {expected}", abbreviated(list)),
    })
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Ids => "input_ids + labels",
            Format::Messages => "messages",
            Format::ShareGpt => "ShareGPT",
            Format::PromptCompletion => "prompt + completion",
            Format::Alpaca => "Alpaca",
            Format::Text => "plain text",
            Format::Fields => "fields + completion",
            Format::Preference => "chosen + rejected",
            Format::Ranked => "prompt + answers",
            Format::Labelled => "prompt + completion + label",
            Format::Prompt => "prompt",
        })
    }
}

impl fmt::Display for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {}", self.path.display(), counted(self.rows, "row"), self.format)
    }
}

#[cfg(test)]
#[path = "rows/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "rows/source_tests.rs"]
mod source_tests;
