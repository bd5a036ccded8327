//! The commands, one file each: its arguments, and `run`.

pub mod bench;
pub mod completions;
pub mod demo;
pub mod devices;
pub mod eval;
pub mod generate;
pub mod logits;
pub mod merge;
pub mod pretrain;
pub mod sft;
pub mod tokenize;
