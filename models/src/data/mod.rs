//! Data: rows of files, made into token ids with a loss mask, made into batches.
//!
//! ```text
//! rows::Dataset --split--> encode::Encoder --> [Example] --> batch::Loader --> Batch
//! ```

pub mod batch;
mod compressed;
pub mod conversation;
pub mod encode;
pub mod mixture;
pub mod order;
mod parquet;
pub mod prompts;
pub mod rows;
mod shuffle;
pub mod split;
pub mod template;

/// A label that carries no loss. It is no token's id.
pub const IGNORE: u32 = u32::MAX;
