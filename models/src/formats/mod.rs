//! File formats: weights, configs, tokenizers, chat templates and adapters, in the layouts of
//! Hugging Face's libraries. All but [`model`] work on bytes, shapes and ids, and know no tensors.

pub mod adapter;
pub mod chat_template;
pub mod config;
pub mod files;
pub(crate) mod json;
pub mod model;
pub mod model_card;
pub mod rope;
pub mod safetensors;
pub mod sandbox;
mod strftime;
pub mod tokenizer;
