//! The pages of a column: levels and values, compressed.

use std::borrow::Cow;

use serde_json::Value;

use super::bytes::Bytes;
use super::encodings::{hybrid, plain, values};
use super::schema::{Chunk, Kind};
use super::thrift::{self, Thrift};
use crate::data::compressed::{Allowance, Codec, decompress};

/// What a value is counted as beside its text: it and its levels.
const VALUE: usize = 16;

/// A leaf: what its values are, and the levels of one that is there.
#[derive(Debug)]
pub struct Leaf<'a> {
    pub kind: &'a Kind,
    pub definition_level: u32,
    pub repetition_level: u32,
}

/// A column of a row group.
#[derive(Debug, Default)]
pub struct Column {
    /// Of every entry, how much of its path is there.
    pub definitions: Vec<u32>,
    /// Of every entry, the list that goes on with it; 0 begins a row.
    pub repetitions: Vec<u32>,
    /// Of those entries that are there.
    pub values: Vec<Value>,
}

/// Reads a column of `file`.
pub fn column(file: &[u8], chunk: &Chunk, leaf: &Leaf, allowance: &mut Allowance) -> Result<Column, String> {
    let bytes = file.get(chunk.bytes.clone()).ok_or("its pages lie past the end of the file")?;
    let mut bytes = Bytes(bytes);
    let mut reader = Reader { codec: chunk.codec, leaf, dictionary: None, column: Column::default(), allowance };
    while reader.column.definitions.len() < chunk.values {
        let header = thrift::read(&mut bytes).map_err(|reason| format!("the header of a page: {reason}"))?;
        let body = bytes.take(header.size(3, "size of a page")?)?;
        reader.page(&header, body)?;
    }
    if reader.column.definitions.len() > chunk.values {
        return Err(format!("more values than {}, which its footer says", chunk.values));
    }
    Ok(reader.column)
}

struct Reader<'a> {
    codec: i64,
    leaf: &'a Leaf<'a>,
    dictionary: Option<Vec<Value>>,
    column: Column,
    allowance: &'a mut Allowance,
}

impl Reader<'_> {
    fn page(&mut self, header: &Thrift, body: &[u8]) -> Result<(), String> {
        let size = header.size(2, "size of a page unpacked")?;
        match (header.int(1), header.field(5), header.field(7), header.field(8)) {
            (Some(0), Some(header), ..) => {
                let body = self.unpack(body, size)?;
                self.data(header, Bytes(&body))
            }
            // An index, for readers of a part.
            (Some(1), ..) => Ok(()),
            (Some(2), _, Some(header), _) => {
                let body = self.unpack(body, size)?;
                let count = header.size(1, "number of words")?;
                self.dictionary = Some(plain(&mut Bytes(&body), self.leaf.kind, count, self.allowance)?);
                Ok(())
            }
            (Some(3), _, _, Some(header)) => self.data_v2(header, Bytes(body), size),
            (kind, ..) => Err(format!("a page of the unknown type {kind:?}")),
        }
    }

    /// Both levels, each after its length, and the values.
    fn data(&mut self, header: &Thrift, mut body: Bytes) -> Result<(), String> {
        let count = self.count(header)?;
        let mut levels = |highest: u32, encoding| {
            if highest == 0 {
                return Ok(vec![0; count]);
            }
            if header.int(encoding) != Some(3) {
                return Err(format!("levels of encoding {:?}; expected 3", header.int(encoding)));
            }
            let length = body.length()?;
            hybrid(Bytes(body.take(length)?), width(highest), count)
        };
        let repetitions = levels(self.leaf.repetition_level, 4)?;
        let definitions = levels(self.leaf.definition_level, 3)?;
        self.add(header.int(2), body, definitions, repetitions)
    }

    /// Both levels, never compressed, with their lengths in the header, and the values.
    fn data_v2(&mut self, header: &Thrift, mut body: Bytes, size: usize) -> Result<(), String> {
        let count = self.count(header)?;
        let whole = body.0.len();
        let mut levels = |highest: u32, length| {
            let length = header.size(length, "length of levels")?;
            let bytes = Bytes(body.take(length)?);
            if highest == 0 { Ok(vec![0; count]) } else { hybrid(bytes, width(highest), count) }
        };
        let repetitions = levels(self.leaf.repetition_level, 6)?;
        let definitions = levels(self.leaf.definition_level, 5)?;
        let unpacked = if header.bool(7) == Some(false) {
            Cow::Borrowed(body.0)
        } else {
            let size = size.checked_sub(whole - body.0.len()).ok_or("levels longer than their page")?;
            self.unpack(body.0, size)?
        };
        self.add(header.int(4), Bytes(&unpacked), definitions, repetitions)
    }

    /// The entries of a page, paid for before they are made.
    fn count(&mut self, header: &Thrift) -> Result<usize, String> {
        let count = header.size(1, "number of values")?;
        self.allowance.spend(count.saturating_mul(VALUE))?;
        Ok(count)
    }

    fn add(&mut self, encoding: Option<i64>, bytes: Bytes, definitions: Vec<u32>, repetitions: Vec<u32>) -> Result<(), String> {
        let encoding = encoding.ok_or("a page without an encoding")?;
        let there = definitions.iter().filter(|level| **level == self.leaf.definition_level).count();
        let values = values(encoding, bytes, self.leaf.kind, there, self.dictionary.as_deref(), self.allowance)?;
        self.column.values.extend(values);
        self.column.definitions.extend(definitions);
        self.column.repetitions.extend(repetitions);
        Ok(())
    }

    fn unpack<'a>(&mut self, body: &'a [u8], size: usize) -> Result<Cow<'a, [u8]>, String> {
        let codec = match self.codec {
            0 => return Ok(Cow::Borrowed(body)),
            1 => Codec::Snappy,
            2 => Codec::Gzip,
            6 => Codec::Zstd,
            other => {
                let name = match other {
                    3 => "lzo",
                    4 => "brotli",
                    5 | 7 => "lz4",
                    _ => "a codec that is not known",
                };
                return Err(format!("compressed by {name}; expected snappy, gzip, zstd or nothing"));
            }
        };
        if size == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let unpacked = decompress(codec, body, self.allowance)?;
        if unpacked.len() != size {
            return Err(format!("a page of {} bytes; expected {size}", unpacked.len()));
        }
        Ok(Cow::Owned(unpacked))
    }
}

/// The bits that levels up to `highest` take.
fn width(highest: u32) -> u32 {
    u32::BITS - highest.leading_zeros()
}
