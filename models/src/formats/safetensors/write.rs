//! Writing weight files, one tensor in memory at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{INDEX_FILE, MODEL_FILE};
use crate::error::{Error, Result};
use crate::formats::files::{write_bytes, write_file};
use wgtune_engine::DType;

/// What a weight file says of a tensor, apart from its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, as in `model.embed_tokens.weight`.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Bytes its elements take.
    pub fn byte_size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Writes the weight file `path`. `bytes` is asked for each tensor's elements, row-major and
/// little-endian, once and in the file's order: wider types first, then by name.
///
/// # Errors
/// [`Error::Io`], or whatever `bytes` returns; the old file, if any, is then untouched.
///
/// # Panics
/// If `bytes` returns other than [`TensorInfo::byte_size`] bytes, or two tensors bear one name.
#[track_caller]
pub fn save<'a>(
    path: &Path,
    tensors: &[TensorInfo],
    metadata: &BTreeMap<String, String>,
    mut bytes: impl FnMut(&TensorInfo) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    let mut tensors: Vec<_> = tensors.iter().collect();
    tensors.sort_by(|a, b| (b.dtype.size(), &a.name).cmp(&(a.dtype.size(), &b.name)));
    let header = header(&tensors, metadata);
    write_file(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| out.write_all(&header)).map_err(Error::io(path))?;
        for tensor in tensors {
            let bytes = bytes(tensor)?;
            assert_eq!(
                bytes.len(),
                tensor.byte_size(),
                "[save] bytes of `{}`, {:?} {:?}",
                tensor.name,
                tensor.dtype,
                tensor.shape
            );
            out.write_all(&bytes).map_err(Error::io(path))?;
        }
        Ok(())
    })
}

/// Writes a model's weights into `directory`: `model.safetensors`, or, where they take more than
/// `shard_bytes`, shards of at most that size and their index. Files of an earlier model are not
/// removed: write into a new folder, as [`write_directory`](crate::formats::files::write_directory) gives.
///
/// # Errors
/// As [`save`].
///
/// # Panics
/// As [`save`].
#[track_caller]
pub fn save_model<'a>(
    directory: &Path,
    tensors: &[TensorInfo],
    shard_bytes: usize,
    mut bytes: impl FnMut(&TensorInfo) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    // Readers ask for the framework that the names and layouts are of.
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let shards = shards(tensors, shard_bytes);
    if let [whole] = &shards[..] {
        return save(&directory.join(MODEL_FILE), whole, &metadata, bytes);
    }
    let mut weight_map = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        save(&directory.join(&name), shard, &metadata, &mut bytes)?;
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), name.clone())));
    }
    let total: usize = tensors.iter().map(TensorInfo::byte_size).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    let index = format!("{index:#}\n");
    write_bytes(&directory.join(INDEX_FILE), index.as_bytes())
}

/// Cuts the tensors, in their order, into runs of at most `shard_bytes`, or of one larger tensor.
fn shards(tensors: &[TensorInfo], shard_bytes: usize) -> Vec<Vec<TensorInfo>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        if size > 0 && size + tensor.byte_size() > shard_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += tensor.byte_size();
        shards.last_mut().expect("begins with one").push(tensor.clone());
    }
    shards
}

/// The header's JSON, padded with blanks so that the data begins at a multiple of 8.
#[track_caller]
fn header(tensors: &[&TensorInfo], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.byte_size();
        let info = safetensors::tensor::TensorInfo {
            dtype: super::to_file(tensor.dtype),
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        let twin = entries.insert(tensor.name.clone(), json!(info));
        assert!(twin.is_none(), "[save] two tensors named `{}`", tensor.name);
        start = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}
