//! One decoder, told by its config which family it is of: Llama, Mistral, Qwen2, Qwen3, SmolLM.
//!
//! Shapes: B rows, T tokens a row, H hidden width, Q query heads and KV key heads of width D, V vocabulary.

mod attention;
mod block;
mod cache;
mod decoder;
mod rope;

pub use cache::{Cache, Cached, Row};
pub use decoder::{Decoder, Forward, Input};
