//! What kind of file a data file is: told by its name, or else by its content, and refused where neither tells.

use std::path::Path;

use serde_json::Value;

use crate::data::compressed::{Codec, decompress};
use crate::error::{Error, Result};
use crate::formats::files;

/// The kinds of files that rows are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An object a line, or an array of objects.
    Json,
    /// Documents.
    Text,
    /// Fields that this character separates; the first line names them.
    Table(char),
    Parquet,
}

/// A data file, read and unpacked.
pub struct Source {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

const NAMES: &str = "a name that ends in .jsonl, .json, .txt, .md, .csv, .tsv or .parquet, with .gz or .zst after it or not";

/// How files begin that are often taken for data.
const BEGINNINGS: [(&[u8], &str); 10] = [
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a file compressed by gzip"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd"),
    (b"PK\x03\x04", "a ZIP archive, as spreadsheets and documents are"),
    (b"%PDF-", "a PDF"),
    (b"BZh91AY&SY", "a file compressed by bzip2"),
    (b"\xfd7zXZ\0", "a file compressed by xz"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89HDF\r\n", "an HDF5 file"),
];

impl Source {
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for what is no regular file, for no known kind, for broken compression, and for nothing.
    pub fn open(path: &Path) -> Result<Source> {
        Source::new(path, files::read_bytes(path)?)
    }

    /// What `bytes` of the file `path` are.
    pub fn new(path: &Path, bytes: Vec<u8>) -> Result<Source> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (name, codec) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
            (Some(name), _) => (name, Some(Codec::Gzip)),
            (_, Some(name)) => (name, Some(Codec::Zstd)),
            _ => (&name[..], None),
        };
        let bytes = match codec {
            Some(codec) => decompress(codec, &bytes).map_err(|message| refused(path, &message))?,
            None => bytes,
        };
        if bytes.is_empty() {
            return Err(refused(path, "empty; expected at least one row"));
        }
        let kind = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some("json" | "jsonl" | "ndjson") => Kind::Json,
            Some("txt" | "text" | "md" | "markdown") => Kind::Text,
            Some("csv") => Kind::Table(','),
            Some("tsv" | "tab") => Kind::Table('\t'),
            Some("parquet" | "pq") => Kind::Parquet,
            _ => by_content(path, &bytes)?,
        };
        Ok(Source { kind, bytes })
    }

    /// Its text, without a byte order mark.
    ///
    /// # Errors
    /// [`Error::Data`] for what begins as another kind does, holds a zero byte, or is plain text by its name and JSON by its
    /// content; [`Error::Io`] for what is not UTF-8.
    pub fn text(self, path: &Path) -> Result<String> {
        if let Some(found) = beginning(&self.bytes) {
            return Err(refused(path, &format!("{found}; expected text, or {NAMES}")));
        }
        let mut text = files::text(path, self.bytes)?;
        if let Some(at) = text.find('\0') {
            let line = 1 + text[..at].matches('\n').count();
            let message = "a zero byte; expected text in UTF-8".into();
            return Err(Error::Row { path: path.to_path_buf(), line, message });
        }
        if text.starts_with('\u{FEFF}') {
            text.drain(..'\u{FEFF}'.len_utf8());
        }
        if self.kind == Kind::Text && is_json(&text) {
            return Err(refused(path, "JSON in a file named as plain text; expected a name that ends in .jsonl or .json"));
        }
        Ok(text)
    }
}

fn by_content(path: &Path, bytes: &[u8]) -> Result<Kind> {
    let rest = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(bytes).trim_ascii_start();
    let found = match (rest.first(), beginning(bytes)) {
        (None | Some(b'{' | b'['), _) => return Ok(Kind::Json),
        (_, Some("a Parquet file")) => return Ok(Kind::Parquet),
        (_, Some(found)) => found,
        _ if bytes.contains(&0) || std::str::from_utf8(bytes).is_err() => "binary data",
        _ => "text that is not JSON",
    };
    Err(refused(path, &format!("{found}; expected {NAMES}")))
}

fn beginning(bytes: &[u8]) -> Option<&'static str> {
    BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)).map(|(_, found)| *found)
}

/// Whether a text is JSON Lines, by its first two lines, or an array of objects.
fn is_json(text: &str) -> bool {
    let is_object = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object());
    match text.trim_start().chars().next() {
        Some('{') => text.lines().filter(|line| !line.trim().is_empty()).take(2).all(is_object),
        Some('[') => serde_json::from_str::<Vec<serde_json::Map<String, Value>>>(text).is_ok_and(|rows| !rows.is_empty()),
        _ => false,
    }
}

fn refused(path: &Path, message: &str) -> Error {
    Error::Data { message: format!("{}: {message}", path.display()) }
}
