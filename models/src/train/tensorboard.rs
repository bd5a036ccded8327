//! A run's figures as TensorBoard reads them: a file of records, each of them an `Event`.
//!
//! The frame of a record is TensorFlow's
//! (<https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/io/record_writer.h>):
//!
//! ```text
//! u64 length | u32 masked crc32c of the length | data | u32 masked crc32c of the data     all little-endian
//! ```
//!
//! Its data is protobuf, of which these fields are written
//! (<https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto> and `summary.proto` beside it):
//!
//! ```text
//! Event    double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//! Summary  repeated Value value = 1;
//! Value    string tag = 1; float simple_value = 2;
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics::Metrics;
use crate::error::Result;
use crate::formats::files::{append_bytes, read_bytes, write_bytes};

/// What TensorBoard knows a file of events by.
const PREFIX: &str = "events.out.tfevents.";
const VERSION: &str = "brain.Event:2";

/// The file of a run's events.
pub(super) struct Events {
    path: PathBuf,
}

impl Events {
    /// Those in a folder with files of these names; where none is one of events, there are none yet.
    pub fn new(folder: &Path, names: &[OsString]) -> Events {
        let found = names.iter().find(|name| name.to_string_lossy().starts_with(PREFIX)).cloned();
        let name = found.unwrap_or_else(|| format!("{PREFIX}{:010}.wgtune", now() as u64).into());
        Events { path: folder.join(name) }
    }

    /// Adds the event of an update.
    ///
    /// # Errors
    /// A full disk; the file is then as it was.
    pub fn append(&self, metrics: &Metrics) -> Result<()> {
        let mut bytes = Vec::new();
        if !self.path.exists() {
            bytes.extend(framed(&event(0, 3, VERSION.as_bytes())));
        }
        bytes.extend(framed(&event(metrics.step as u64, 5, &summary(metrics))));
        append_bytes(&self.path, &bytes)
    }

    /// Leaves the events of the first `steps` updates, and nothing of one that was cut off while it was written.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn cut(&self, steps: usize) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let bytes = read_bytes(&self.path)?;
        let mut rest = bytes.as_slice();
        let mut kept = Vec::with_capacity(bytes.len());
        while let Some(record) = first_record(rest) {
            if step(data(record)) <= steps as u64 {
                kept.extend_from_slice(record);
            }
            rest = &rest[record.len()..];
        }
        write_bytes(&self.path, &kept)
    }
}

/// The figures that are drawn, under their names in `metrics.jsonl`.
fn summary(metrics: &Metrics) -> Vec<u8> {
    let scalars = [
        ("loss", Some(metrics.loss)),
        ("validation_loss", metrics.validation_loss),
        ("learning_rate", Some(metrics.learning_rate)),
        ("grad_norm", Some(metrics.grad_norm)),
        ("tokens_per_second", Some(metrics.tokens_per_second)),
    ];
    let value = |tag: &str, number: f64| [field(1, tag.as_bytes()), fixed(2, &(number as f32).to_le_bytes())].concat();
    scalars.into_iter().filter_map(|(tag, number)| Some(field(1, &value(tag, number?)))).flatten().collect()
}

/// An event now, with what it holds as field `number`.
fn event(step: u64, number: u8, content: &[u8]) -> Vec<u8> {
    [fixed(1, &now().to_le_bytes()), vec![2 << 3], varint(step), field(number, content)].concat()
}

/// The step of an event that was written here: it follows the nine bytes of the time.
fn step(event: &[u8]) -> u64 {
    let digits = event.iter().skip(10).scan(false, |ended, byte| (!std::mem::replace(ended, byte & 0x80 == 0)).then_some(byte));
    digits.take(9).enumerate().map(|(place, byte)| u64::from(byte & 0x7f) << (7 * place)).sum()
}

/// A protobuf field of bytes, text, or a message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A protobuf field of a float's four bytes, or a double's eight.
fn fixed(number: u8, bytes: &[u8]) -> Vec<u8> {
    let kind = if bytes.len() == 4 { 5 } else { 1 };
    [&[number << 3 | kind], bytes].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

const HEADER: usize = 12;
const FOOTER: usize = 4;

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// The record that some bytes begin with, if it is whole.
fn first_record(bytes: &[u8]) -> Option<&[u8]> {
    let length: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let end = usize::try_from(u64::from_le_bytes(length)).ok()?.checked_add(HEADER + FOOTER)?;
    let record = bytes.get(..end)?;
    let is_whole = record[8..HEADER] == masked(&length) && record[end - FOOTER..] == masked(data(record));
    is_whole.then_some(record)
}

fn data(record: &[u8]) -> &[u8] {
    &record[HEADER..record.len() - FOOTER]
}

/// A sum is masked, since sums of bytes that hold sums are poor ones
/// (<https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/hash/crc32c.h>).
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Castagnoli's sum: RFC 3720, appendix B.4.
fn crc32c(bytes: &[u8]) -> u32 {
    let shifted = |sum: u32| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| shifted(sum)))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_step_is_read_as_it_was_written() {
        for expected in [0, 1, 127, 128, 300, 1_000_000_000] {
            assert_eq!(step(&event(expected, 5, b"summary")), expected);
        }
        assert_eq!(step(b""), 0);
    }

    #[test]
    fn a_cut_leaves_whole_events_of_the_steps_that_stay() {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::new(folder.path(), &[]);
        events.cut(3).unwrap();
        let record = |step: u64| framed(&event(step, 5, b""));
        let records: Vec<Vec<u8>> = (0..4).map(record).collect();
        let whole = records.concat();
        for end in whole.len() - records[3].len()..=whole.len() {
            write_bytes(&events.path, &whole[..end]).unwrap();
            events.cut(3).unwrap();
            let expected = if end == whole.len() { &whole[..] } else { &records[..3].concat() };
            assert_eq!(read_bytes(&events.path).unwrap(), expected);
            events.cut(1).unwrap();
            assert_eq!(read_bytes(&events.path).unwrap(), records[..2].concat());
        }
        let names = ["notes.txt".into(), events.path.file_name().unwrap().into()];
        assert_eq!(Events::new(folder.path(), &names).path, events.path);
    }
}
