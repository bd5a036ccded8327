//! Opened weights: mapped files, and a checked place in one of them for every tensor.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::Mmap;
use wgtune_engine::DType;
use wgtune_engine::recording::Payload;

use super::header::Header;
use super::{INDEX_FILE, MODEL_FILE};
use crate::error::{Error, Result};
use crate::formats::files::open_regular;
use crate::formats::json::Object;
use crate::wording::shortened;

/// The tensors of one weight file, or of all the shards of a model, by name.
///
/// The files are mapped: opening reads headers only, and a tensor's bytes come from the disk when they
/// are first looked at.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<Arc<Mapped>>,
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// One tensor of a weight file, not copied.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The type of its elements.
    pub dtype: DType,
    /// Its sizes, outermost first.
    pub shape: &'a [usize],
    /// Its elements, row-major, little-endian. They may lie at any alignment.
    pub bytes: &'a [u8],
    mapped: &'a Arc<Mapped>,
    range: &'a Range<usize>,
}

/// Bytes of a mapped file, which stays mapped as long as they are there.
struct Part {
    mapped: Arc<Mapped>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.mapped.map[self.range.clone()]
    }
}

#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    map: Mmap,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Weights {
    /// Opens the weights of a model's folder: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`Error::Io`] where a file is missing, [`Error::Weights`] for a file that breaks the format, a
    /// tensor that its shard lacks or the index does not name, and a tensor found in two shards.
    pub fn open_model(directory: &Path) -> Result<Weights> {
        let single = directory.join(MODEL_FILE);
        let index = directory.join(INDEX_FILE);
        if single.exists() || !index.exists() {
            return Weights::open_file(&single);
        }
        let weight_map = read_index(&index)?;
        let mut weights = Weights::empty(&index);
        let mut shards: Vec<_> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            weights.add_file(&directory.join(shard))?;
        }
        weights.check_index(&weight_map)?;
        Ok(weights)
    }

    /// Opens one weight file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Weights`] if it breaks the format.
    pub fn open_file(path: &Path) -> Result<Weights> {
        let mut weights = Weights::empty(path);
        weights.add_file(path)?;
        Ok(weights)
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of the tensor of this name, by the header alone, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| &entry.shape[..])
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none, [`Error::Weights`] if its type is none of [`DType`].
    pub fn get(&self, name: &str) -> Result<View<'_>> {
        let entry =
            self.tensors.get(name).ok_or_else(|| Error::MissingTensor { path: self.path.clone(), tensor: name.into() })?;
        let file = &self.files[entry.file];
        let dtype = super::from_file(entry.dtype).ok_or_else(|| Error::Weights {
            path: file.path.clone(),
            message: format!("tensor `{name}` is of type {}; expected F32, F16, BF16 or U32", entry.dtype),
        })?;
        Ok(View { dtype, shape: &entry.shape, bytes: &file.map[entry.bytes.clone()], mapped: file, range: &entry.bytes })
    }

    /// The free-form strings of the file's header (`format`, which is `pt`, and whatever else).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The weight file, or the index of a model in shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn empty(path: &Path) -> Weights {
        Weights { path: path.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new(), metadata: BTreeMap::new() }
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let mapped = Mapped::open(path)?;
        let header = Header::parse(&mapped.map).map_err(|message| Error::Weights { path: path.to_path_buf(), message })?;
        let file = self.files.len();
        self.files.push(Arc::new(mapped));
        self.metadata.extend(header.metadata);
        for tensor in header.tensors {
            let entry = Entry { file, dtype: tensor.dtype, shape: tensor.shape, bytes: tensor.bytes };
            if let Some(other) = self.tensors.insert(tensor.name.clone(), entry) {
                return Err(Error::Weights {
                    path: path.to_path_buf(),
                    message: format!("tensor `{}` is also in {}", tensor.name, self.files[other.file].path.display()),
                });
            }
        }
        Ok(())
    }

    /// The index and the shards must name the same tensors in the same files.
    fn check_index(&self, weight_map: &BTreeMap<String, String>) -> Result<()> {
        let error = |message: String| Err(Error::Weights { path: self.path.clone(), message });
        for (name, shard) in weight_map {
            let found = self.tensors.get(name).map(|entry| &self.files[entry.file].path);
            if found.and_then(|path| path.file_name()) != Some(shard.as_ref()) {
                let [name, shard] = [name, shard].map(|name| shortened(name, 200));
                return error(format!("tensor `{name}` should be in {shard}, which does not hold it"));
            }
        }
        match self.tensors.iter().find(|(name, _)| !weight_map.contains_key(*name)) {
            None => Ok(()),
            Some((name, entry)) => {
                let name = shortened(name, 200);
                error(format!("tensor `{name}` of {} is not in the index", self.files[entry.file].path.display()))
            }
        }
    }
}

impl View<'_> {
    /// The bytes without a copy: on the CPU a tensor that is only read stays in the file.
    pub fn payload(&self) -> Payload {
        Arc::new(Part { mapped: self.mapped.clone(), range: self.range.clone() })
    }

    /// The elements as 32-bit floats; `U32` is converted too, exactly below 2^24.
    pub fn to_f32(&self) -> Vec<f32> {
        widen(self.dtype, self.bytes)
    }
}

pub(super) fn widen(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F32 => elements(bytes, f32::from_le_bytes),
        DType::F16 => elements(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
        DType::BF16 => elements(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        DType::U32 => elements(bytes, |bytes| u32::from_le_bytes(bytes) as f32),
    }
}

fn elements<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect()
}

impl Mapped {
    /// Maps a file for reading.
    #[allow(unsafe_code)]
    fn open(path: &Path) -> Result<Mapped> {
        let file = open_regular(path)?;
        // SAFETY: a mapping is a plain slice only as long as nobody shortens or rewrites the file beneath
        // it, which no program can prevent. Weight files are written once and, by this crate, replaced by
        // renaming, which leaves a mapped file as it was. Reading them instead would double the memory
        // that a model takes.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Mapped { path: path.to_path_buf(), map })
    }
}

/// The `weight_map` of an index: tensor name to shard.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let expected = "an object from tensor names to shard files";
    let index = Object::read(path)?;
    let map = index.object("weight_map")?;
    let map = index.required("weight_map", expected, map)?;
    map.map
        .iter()
        .map(|(name, shard)| {
            // A shard is a bare file name, as long as names may be: an index must not lead out of its folder.
            let shard = shard
                .as_str()
                .filter(|shard| shard.len() <= 255 && Path::new(shard).file_name() == Some(shard.as_ref()))
                .ok_or_else(|| map.error(name, "the name of a file beside the index"))?;
            Ok((name.clone(), shard.to_string()))
        })
        .collect()
}
