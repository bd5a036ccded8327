//! Transformers, tuning methods, data, training, generation and file formats. Knows the engine, and nothing of command lines.

pub mod data;
pub mod demo;
pub mod error;
pub mod formats;
pub mod generate;
pub mod hash;
pub mod nn;
pub mod peft;
pub mod train;
pub mod transformer;
pub mod wording;

pub use error::{Error, Result};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: formats::sandbox::Allocator = formats::sandbox::Allocator;
