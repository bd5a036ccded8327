//! The [encodings](https://parquet.apache.org/docs/file-format/data-pages/encodings/) of levels and values.

use serde_json::{Number, Value};

use super::bytes::Bytes;
use super::schema::Kind;
use crate::data::compressed::Allowance;

/// `count` values of a page. Those of a dictionary are looked up in `dictionary`.
pub fn values(
    encoding: i64,
    mut bytes: Bytes,
    kind: &Kind,
    count: usize,
    dictionary: Option<&[Value]>,
    allowance: &mut Allowance,
) -> Result<Vec<Value>, String> {
    match (encoding, kind) {
        (0, _) => plain(&mut bytes, kind, count, allowance),
        (2 | 8, _) => {
            let dictionary = dictionary.ok_or("a page of a dictionary that is not there")?;
            let width = if count == 0 { 0 } else { bytes.byte()? };
            let look_up = |index| {
                let index = index as usize;
                let value =
                    dictionary.get(index).ok_or_else(|| format!("word {index} of a dictionary of {}", dictionary.len()))?;
                allowance.spend(value.as_str().map_or(0, str::len))?;
                Ok(value.clone())
            };
            hybrid(bytes, u32::from(width), count)?.into_iter().map(look_up).collect()
        }
        (3, Kind::Bool) => {
            let length = bytes.length()?;
            let bits = hybrid(Bytes(bytes.take(length)?), 1, count)?;
            Ok(bits.into_iter().map(|bit| Value::Bool(bit == 1)).collect())
        }
        (5, Kind::Int32 | Kind::Unsigned32 | Kind::Int64 | Kind::Unsigned64) => {
            let integer = |number: i64| match kind {
                Kind::Int32 => Value::from(number as i32),
                Kind::Unsigned32 => Value::from(number as u32),
                Kind::Unsigned64 => Value::from(number as u64),
                _ => Value::from(number),
            };
            Ok(deltas(&mut bytes, count)?.into_iter().map(integer).collect())
        }
        (6, Kind::Text) => texts_by_length(&mut bytes, count)?.into_iter().map(|bytes| text(bytes, allowance)).collect(),
        (7, Kind::Text) => {
            let prefixes = deltas(&mut bytes, count)?;
            let suffixes = texts_by_length(&mut bytes, count)?;
            let mut last: Vec<u8> = Vec::new();
            let join = |(prefix, suffix): (i64, &[u8])| {
                let length = usize::try_from(prefix).ok().filter(|length| *length <= last.len());
                last.truncate(length.ok_or("a text that shares more with the one before than that has")?);
                last.extend_from_slice(suffix);
                text(&last, allowance)
            };
            prefixes.into_iter().zip(suffixes).map(join).collect()
        }
        _ => Err(format!("values of encoding {encoding} (of Parquet's own numbers); expected 0, 2, 3, 5, 6, 7 or 8")),
    }
}

/// `count` values one after the other.
pub fn plain(bytes: &mut Bytes, kind: &Kind, count: usize, allowance: &mut Allowance) -> Result<Vec<Value>, String> {
    // A value takes an eighth of a byte or more.
    if count > bytes.0.len().saturating_mul(8) {
        return Err(format!("{count} values in {} bytes", bytes.0.len()));
    }
    if *kind == Kind::Bool {
        let packed = bytes.take(count.div_ceil(8))?;
        return Ok((0..count).map(|index| Value::Bool(packed[index / 8] >> (index % 8) & 1 == 1)).collect());
    }
    let mut one = || {
        Ok(match kind {
            Kind::Int32 => Value::from(i32::from_le_bytes(bytes.array()?)),
            Kind::Unsigned32 => Value::from(u32::from_le_bytes(bytes.array()?)),
            Kind::Int64 => Value::from(i64::from_le_bytes(bytes.array()?)),
            Kind::Unsigned64 => Value::from(u64::from_le_bytes(bytes.array()?)),
            Kind::Float => number(f64::from(f32::from_le_bytes(bytes.array()?))),
            Kind::Double => number(f64::from_le_bytes(bytes.array()?)),
            Kind::Text => {
                let length = bytes.length()?;
                text(bytes.take(length)?, allowance)?
            }
            Kind::Unsupported(what) => return Err(format!("{what}; expected text, numbers, truth values, lists or structs")),
            Kind::Bool => unreachable!("truth values are packed"),
        })
    };
    (0..count).map(|_| one()).collect()
}

/// `count` numbers of `width` bits: runs of one number, and runs of numbers packed.
pub fn hybrid(mut bytes: Bytes, width: u32, count: usize) -> Result<Vec<u32>, String> {
    if width > 32 {
        return Err(format!("numbers of {width} bits"));
    }
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let left = count - numbers.len();
        let header = bytes.size()?;
        if header & 1 == 0 {
            let mut number = [0; 4];
            let width = width.div_ceil(8) as usize;
            number[..width].copy_from_slice(bytes.take(width)?);
            numbers.extend(std::iter::repeat_n(u32::from_le_bytes(number), left.min(header >> 1)));
        } else {
            // Groups of eight; some writers leave out what pads the last.
            let packed = (header >> 1).saturating_mul(width as usize).min(bytes.0.len());
            let packed = bytes.take(packed)?;
            let here = left.min((header >> 1).saturating_mul(8));
            unpack(packed, width, here, |number| numbers.push(number as u32))?;
        }
    }
    Ok(numbers)
}

/// `count` numbers of `width` bits, the lowest first.
fn unpack(packed: &[u8], width: u32, count: usize, mut each: impl FnMut(u64)) -> Result<(), String> {
    if count.saturating_mul(width as usize).div_ceil(8) > packed.len() {
        return Err("cut off in the middle of packed numbers".into());
    }
    let mask = (1u128 << width) - 1;
    let (mut held, mut bits, mut next) = (0u128, 0, packed.iter());
    for _ in 0..count {
        while bits < width {
            held |= u128::from(*next.next().expect("there are enough bytes")) << bits;
            bits += 8;
        }
        each((held & mask) as u64);
        held >>= width;
        bits -= width;
    }
    Ok(())
}

/// `count` integers as their differences, in blocks of packed ones.
fn deltas(bytes: &mut Bytes, count: usize) -> Result<Vec<i64>, String> {
    let (block, packs, total) = (bytes.size()?, bytes.size()?, bytes.size()?);
    let mut number = bytes.zigzag()?;
    if total != count {
        return Err(format!("{total} differences; expected {count}"));
    }
    if packs == 0 || block == 0 || !block.is_multiple_of(packs) || !(block / packs).is_multiple_of(8) || block > 1 << 20 {
        return Err(format!("blocks of {block} differences in {packs} packs"));
    }
    let mut numbers = Vec::new();
    if count > 0 {
        numbers.push(number);
    }
    while numbers.len() < count {
        let least = bytes.zigzag()?;
        for &width in bytes.take(packs)? {
            let left = count - numbers.len();
            if left == 0 {
                break;
            }
            if width > 64 {
                return Err(format!("differences of {width} bits"));
            }
            let packed = bytes.take((block / packs / 8 * usize::from(width)).min(bytes.0.len()))?;
            unpack(packed, u32::from(width), left.min(block / packs), |delta| {
                number = number.wrapping_add(least).wrapping_add(delta as i64);
                numbers.push(number);
            })?;
        }
    }
    Ok(numbers)
}

/// All lengths, then all texts.
fn texts_by_length<'a>(bytes: &mut Bytes<'a>, count: usize) -> Result<Vec<&'a [u8]>, String> {
    let lengths = deltas(bytes, count)?;
    let text = |length| bytes.take(usize::try_from(length).map_err(|_| format!("a text of length {length}"))?);
    lengths.into_iter().map(text).collect()
}

fn text(bytes: &[u8], allowance: &mut Allowance) -> Result<Value, String> {
    allowance.spend(bytes.len())?;
    let text = std::str::from_utf8(bytes).map_err(|_| "binary values; expected text in UTF-8")?;
    Ok(Value::String(text.into()))
}

/// JSON has no number that is not finite.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
