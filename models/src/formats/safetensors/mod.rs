//! Weight files: [safetensors](https://huggingface.co/docs/safetensors), one file or several shards.
//!
//! Reading maps the files and checks every header before the first tensor is handed out; no weight is
//! copied. Writing streams one tensor at a time, so the weights are never in memory twice.

mod header;
mod read;
mod write;

#[cfg(test)]
mod tests;

use wgtune_engine::DType;

pub use read::{View, Weights};
pub use write::{TensorInfo, save, save_model};

/// The name of the weight file of a model that has only one.
pub const MODEL_FILE: &str = "model.safetensors";
/// The name of the index of a model in shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

fn from_file(dtype: ::safetensors::Dtype) -> Option<DType> {
    match dtype {
        ::safetensors::Dtype::F32 => Some(DType::F32),
        ::safetensors::Dtype::F16 => Some(DType::F16),
        ::safetensors::Dtype::BF16 => Some(DType::BF16),
        ::safetensors::Dtype::U32 => Some(DType::U32),
        _ => None,
    }
}

fn to_file(dtype: DType) -> ::safetensors::Dtype {
    match dtype {
        DType::F32 => ::safetensors::Dtype::F32,
        DType::F16 => ::safetensors::Dtype::F16,
        DType::BF16 => ::safetensors::Dtype::BF16,
        DType::U32 => ::safetensors::Dtype::U32,
    }
}
