//! Weight files: [safetensors](https://huggingface.co/docs/safetensors), one file or several shards.
//!
//! Reading maps the files and checks every header before the first tensor is handed out; no weight is
//! copied. Writing streams one tensor at a time, so the weights are never in memory twice.

mod header;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use read::{View, Weights};
pub use write::{TensorInfo, save, save_model};

/// The name of the weight file of a model that has only one.
pub const MODEL_FILE: &str = "model.safetensors";
/// The name of the index of a model in shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The element types that weights can have here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE single precision, 4 bytes.
    F32,
    /// IEEE half precision, 2 bytes.
    F16,
    /// The upper half of an `F32`, 2 bytes.
    BF16,
    /// Unsigned integers, 4 bytes.
    U32,
}

impl Dtype {
    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
        }
    }

    fn from_file(dtype: ::safetensors::Dtype) -> Option<Dtype> {
        match dtype {
            ::safetensors::Dtype::F32 => Some(Dtype::F32),
            ::safetensors::Dtype::F16 => Some(Dtype::F16),
            ::safetensors::Dtype::BF16 => Some(Dtype::BF16),
            ::safetensors::Dtype::U32 => Some(Dtype::U32),
            _ => None,
        }
    }

    fn to_file(self) -> ::safetensors::Dtype {
        match self {
            Dtype::F32 => ::safetensors::Dtype::F32,
            Dtype::F16 => ::safetensors::Dtype::F16,
            Dtype::BF16 => ::safetensors::Dtype::BF16,
            Dtype::U32 => ::safetensors::Dtype::U32,
        }
    }
}
