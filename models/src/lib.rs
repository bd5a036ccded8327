//! Transformers, tuning methods, data, training, generation and file formats. Knows the engine, and nothing of command lines.

// rustdoc asks of every public type whether it may go to another thread, and so of all that it holds, down to wgpu's own types.
#![recursion_limit = "256"]

pub mod data;
pub mod demo;
pub mod error;
pub mod formats;
pub mod generate;
pub mod hash;
pub mod model;
pub mod nn;
pub mod peft;
pub mod rl;
pub mod tasks;
pub mod train;
pub mod transformer;
pub mod wording;

pub use error::{Error, Result};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: formats::sandbox::Allocator = formats::sandbox::Allocator;
