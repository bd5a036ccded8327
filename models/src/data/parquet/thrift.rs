//! [Thrift's compact protocol](https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), in which
//! Parquet writes its footer and the headers of its pages.

use super::bytes::Bytes;

/// How deep structs and lists may lie in one another; Parquet's own go to six.
const DEPTH: usize = 16;

/// A value, and all that is in it.
#[derive(Debug)]
pub enum Thrift<'a> {
    Bool(bool),
    Int(i64),
    Double,
    Binary(&'a [u8]),
    List(Vec<Thrift<'a>>),
    Struct(Vec<(i64, Thrift<'a>)>),
}

/// A struct from the front of `bytes`.
pub fn read<'a>(bytes: &mut Bytes<'a>) -> Result<Thrift<'a>, String> {
    fields(bytes, DEPTH)
}

impl<'a> Thrift<'a> {
    /// The field of this number.
    pub fn field(&self, id: i64) -> Option<&Thrift<'a>> {
        let Thrift::Struct(fields) = self else { return None };
        fields.iter().find(|(field, _)| *field == id).map(|(_, value)| value)
    }

    pub fn int(&self, id: i64) -> Option<i64> {
        match self.field(id)? {
            Thrift::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub fn bool(&self, id: i64) -> Option<bool> {
        match self.field(id)? {
            Thrift::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn text(&self, id: i64) -> Option<&'a str> {
        match self.field(id)? {
            Thrift::Binary(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The elements of a list, none if there is no such field.
    pub fn list(&self, id: i64) -> &[Thrift<'a>] {
        match self.field(id) {
            Some(Thrift::List(list)) => list,
            _ => &[],
        }
    }

    /// A number that the format asks for; `what` words the error.
    pub fn size(&self, id: i64, what: &str) -> Result<usize, String> {
        let number = self.int(id).ok_or_else(|| format!("no {what}"))?;
        usize::try_from(number).map_err(|_| format!("a {what} of {number}"))
    }
}

fn fields<'a>(bytes: &mut Bytes<'a>, depth: usize) -> Result<Thrift<'a>, String> {
    let mut fields = Vec::new();
    let mut id = 0i64;
    loop {
        let header = bytes.byte()?;
        let kind = header & 0x0f;
        if kind == 0 {
            return Ok(Thrift::Struct(fields));
        }
        let step = i64::from(header >> 4);
        id = if step == 0 { bytes.zigzag()? } else { id.wrapping_add(step) };
        // A field's type says which of the two a truth value is.
        let value = if kind <= 2 { Thrift::Bool(kind == 1) } else { value(bytes, kind, depth)? };
        fields.push((id, value));
    }
}

fn value<'a>(bytes: &mut Bytes<'a>, kind: u8, depth: usize) -> Result<Thrift<'a>, String> {
    let below = || depth.checked_sub(1).ok_or("nested too deeply");
    Ok(match kind {
        1 | 2 => Thrift::Bool(bytes.byte()? == 1),
        3 => Thrift::Int(i64::from(bytes.byte()? as i8)),
        4..=6 => Thrift::Int(bytes.zigzag()?),
        7 => bytes.take(8).map(|_| Thrift::Double)?,
        8 => {
            let length = bytes.size()?;
            Thrift::Binary(bytes.take(length)?)
        }
        9 | 10 => {
            let depth = below()?;
            let header = bytes.byte()?;
            let count = if header >> 4 == 15 { bytes.size()? } else { usize::from(header >> 4) };
            // Grown one by one: a false count meets the end of the bytes.
            let mut list = Vec::new();
            for _ in 0..count {
                list.push(value(bytes, header & 0x0f, depth)?);
            }
            Thrift::List(list)
        }
        12 => fields(bytes, below()?)?,
        _ => return Err(format!("a value of the unknown type {kind}")),
    })
}
