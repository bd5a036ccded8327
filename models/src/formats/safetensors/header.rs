//! The header of a safetensors file: 8 bytes of length, then JSON that says where each tensor lies.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::tensor::TensorInfo;
use serde_json::{Map, Value};

use crate::wording::{sentence, shortened};

/// Where the tensors of one file lie, all checked against the file's length and one another.
#[derive(Debug)]
pub struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: Vec<Located>,
}

/// One tensor and its bytes' place in the file.
#[derive(Debug)]
pub struct Located {
    pub name: String,
    pub dtype: safetensors::Dtype,
    pub shape: Vec<usize>,
    pub bytes: Range<usize>,
}

/// The format's own limit: past this, the length is taken for garbage.
const LARGEST_HEADER: u64 = 100_000_000;

impl Header {
    /// Reads and checks the header of a whole file; an error says what is wrong and with which tensor.
    pub fn parse(file: &[u8]) -> Result<Header, String> {
        let (header, data_start) = split(file)?;
        let mut entries: Map<String, Value> =
            serde_json::from_slice(header).map_err(|error| format!("the header is not a JSON object: {}", sentence(error)))?;
        let metadata = match entries.remove("__metadata__") {
            None => BTreeMap::new(),
            Some(value) => serde_json::from_value(value)
                .map_err(|error| format!("`__metadata__` is not an object of strings: {}", sentence(error)))?,
        };
        let mut tensors = entries
            .into_iter()
            .map(|(name, entry)| locate(name, entry, data_start, file.len()))
            .collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
        check_cover(&tensors, data_start, file.len())?;
        Ok(Header { metadata, tensors })
    }
}

/// The header's JSON and the offset at which the data begins.
fn split(file: &[u8]) -> Result<(&[u8], usize), String> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("truncated: {} bytes, and the header's length alone takes 8", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > LARGEST_HEADER {
        return Err(format!("not a safetensors file: it claims a header of {length} bytes"));
    }
    let length = length as usize;
    let header =
        rest.get(..length).ok_or_else(|| format!("truncated: the header takes {length} bytes, and {} follow", rest.len()))?;
    Ok((header, 8 + length))
}

fn locate(name: String, entry: Value, data_start: usize, file_length: usize) -> Result<Located, String> {
    let info: TensorInfo = serde_json::from_value(entry)
        .map_err(|error| format!("tensor `{}`: broken header entry: {}", shortened(&name, 200), sentence(error)))?;
    let (start, end) = info.data_offsets;
    let bits = info
        .shape
        .iter()
        .try_fold(info.dtype.bitsize(), |product, &size| product.checked_mul(size))
        .ok_or_else(|| format!("tensor `{name}`: shape {:?} overflows", info.shape))?;
    if start > end || (end - start).checked_mul(8) != Some(bits) {
        return Err(format!(
            "tensor `{name}`: {} of shape {:?} takes {} bytes, and its offsets are {start}..{end}",
            info.dtype,
            info.shape,
            bits.div_ceil(8),
        ));
    }
    let data_length = file_length - data_start;
    if end > data_length {
        return Err(format!(
            "tensor `{name}`: its data ends at byte {end}, and the file holds {data_length} bytes of data: \
             truncated, or the header lies"
        ));
    }
    Ok(Located { name, dtype: info.dtype, shape: info.shape, bytes: data_start + start..data_start + end })
}

/// Tensors must follow one another without overlap or hole, to the end of the file.
fn check_cover(tensors: &[Located], data_start: usize, file_length: usize) -> Result<(), String> {
    let mut covered = data_start;
    let mut previous = "the header";
    for tensor in tensors {
        let (name, start) = (&tensor.name, tensor.bytes.start);
        if start < covered {
            return Err(format!("tensor `{name}` overlaps {previous}"));
        }
        if start > covered {
            return Err(format!("{} bytes before tensor `{name}` belong to no tensor", start - covered));
        }
        covered = tensor.bytes.end;
        previous = name;
    }
    match file_length - covered {
        0 => Ok(()),
        rest => Err(format!("the last {rest} bytes belong to no tensor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 0);
        file
    }

    fn error(header: &str, data: usize) -> String {
        Header::parse(&file(header, data)).unwrap_err()
    }

    const TWO: &str = r#"{"b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},
        "__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;

    #[test]
    fn a_good_header_gives_every_tensor_its_bytes() {
        let header = Header::parse(&file(TWO, 12)).unwrap();
        let found: Vec<_> = header.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice(), t.bytes.len())).collect();
        assert_eq!(found, [("a", &[1, 2][..], 8), ("b", &[2][..], 4)]);
        assert_eq!(header.metadata["format"], "pt");
    }

    #[test]
    fn every_truncation_of_a_good_file_is_an_error() {
        let whole = file(TWO, 12);
        for length in 0..whole.len() {
            assert!(Header::parse(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn lies_are_told_apart_and_name_the_tensor() {
        let lie = |from: &str, to: &str| error(&TWO.replace(from, to), 12);
        assert!(lie("[8,12]", "[8,16]").contains("tensor `b`: BF16 of shape [2] takes 4 bytes"));
        assert!(lie("[8,12]", "[12,16]").contains("tensor `b`: its data ends at byte 16"));
        assert!(lie("[8,12]", "[4,8]").contains("tensor `b` overlaps a"));
        assert!(lie("[8,12]", "[12,8]").contains("tensor `b`"));
        assert!(lie("BF16", "BF17").contains("tensor `b`: broken header entry"));
        assert!(lie("[2]", "[4294967296,4294967296]").contains("overflows"));
        assert!(error(TWO, 13).contains("the last 1 bytes belong to no tensor"));
        assert!(error("[]", 0).contains("not a JSON object"));
        let huge = u64::MAX.to_le_bytes();
        assert!(Header::parse(&huge).unwrap_err().contains("not a safetensors file"));
    }
}
