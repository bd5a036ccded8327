//! The base model: a Llama of 0.87 million parameters in f16 and its tokenizer, trained on [`language`](super::language).
//!
//! Made by these commands, in the project's root (about five minutes on two cores):
//!
//! ```text
//! cargo run --release -p wgtune-models --example demo_corpus -- --documents 20000 --out corpus.txt
//! cargo run --release -- pretrain --device cpu --data corpus.txt --out models/src/demo/base --dtype f16 \
//!     --steps 1500 --batch-size 8 --max-length 256 --packing --learning-rate 3e-3 --schedule cosine --warmup 100 \
//!     --weight-decay 0.1 --validation 100
//! ```
//!
//! Only `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json` are kept.

use std::path::Path;

use crate::error::Result;
use crate::formats::files::{write_bytes, write_directory};

const FILES: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("base/config.json")),
    ("model.safetensors", include_bytes!("base/model.safetensors")),
    ("tokenizer.json", include_bytes!("base/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("base/tokenizer_config.json")),
];

/// Writes the base model as a Hugging Face directory.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_base(directory: &Path) -> Result<()> {
    write_directory(directory, |directory| FILES.iter().try_for_each(|(name, bytes)| write_bytes(&directory.join(name), bytes)))
}
