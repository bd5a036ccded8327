//! File formats: weights, configs, tokenizers, chat templates and adapters, in the layouts of
//! Hugging Face's libraries. Everything here works on bytes, shapes and ids; nothing knows tensors.

pub mod adapter;
pub mod chat_template;
pub mod config;
pub mod files;
pub(crate) mod json;
pub mod rope;
pub mod safetensors;
mod strftime;
pub mod tokenizer;
