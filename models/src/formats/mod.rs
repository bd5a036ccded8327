//! File formats: weights, configs, tokenizers and chat templates, in the layouts of
//! Hugging Face's libraries. They work on bytes, shapes and ids, and know no tensors.

pub mod chat_template;
pub mod files;
pub(crate) mod json;
pub mod model_card;
pub mod rope;
pub mod safetensors;
pub mod sandbox;
mod strftime;
pub mod tokenizer;
