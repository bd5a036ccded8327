//! What the configs of methods with virtual tokens share in PEFT's layout.

use std::path::Path;

use serde_json::{Value, json};
use wgtune_engine::Tensor;

use super::files::{CONFIG_FILE, Tensors, check_keys};
use super::settings::{Form, Setting, Settings};
use crate::error::{Error, Result};
use crate::formats::json::Object;
use crate::transformer::{Blueprint, Decoder};

/// How many virtual tokens there are.
pub(super) const COUNT: Setting = Setting {
    name: "virtual-tokens",
    help: "How many virtual tokens stand before a text",
    form: Form::Whole { range: 1..=65_536, default: 20 },
};

/// A text that they begin as.
pub(super) const TEXT: Setting = Setting {
    name: "virtual-text",
    help: "Begin as the tokens of this text, cut at the number of virtual tokens, or said again as often as it takes",
    form: Form::Text { value: "TEXT", default: "", check: |_| Ok(()) },
};

/// The name of the table in the weight file.
pub(super) const TABLE: &str = "prompt_embeddings";

/// The part of a config that is the same for all of them.
#[derive(Clone)]
pub(super) struct VirtualTokens {
    /// How many there are.
    pub count: usize,
    /// Numbers of each: the model's width, or that of a layer's keys.
    pub width: usize,
    layers: usize,
    heads: usize,
    base: Option<String>,
    task_type: Option<String>,
}

impl VirtualTokens {
    /// Those that were chosen, for a model of this kind.
    pub fn chosen(settings: &Settings, blueprint: &Blueprint, width: usize, heads: usize, base: &str) -> VirtualTokens {
        VirtualTokens {
            count: settings.whole(COUNT.name),
            width,
            layers: blueprint.num_hidden_layers,
            heads,
            base: Some(base.into()),
            task_type: Some("CAUSAL_LM".into()),
        }
    }

    /// Those of the adapter in a folder, for this model, and their table [V, columns]; `own` are keys that its method understands,
    /// and what it trains has so many numbers a token, and so many heads.
    pub fn open(
        directory: &Path,
        decoder: &Decoder,
        peft_type: &str,
        own: &[&str],
        [width, heads]: [usize; 2],
        columns: usize,
    ) -> Result<(VirtualTokens, Tensor)> {
        let keys = Object::read(&directory.join(CONFIG_FILE))?;
        let layers = decoder.blueprint().num_hidden_layers;
        let shared = VirtualTokens::read(&keys, peft_type, own, layers, [width, heads])?;
        let mut tensors = Tensors::open(directory)?;
        let table = tensors.read(TABLE, &[shared.count, columns], decoder.device())?;
        tensors.finish()?;
        Ok((shared, table))
    }

    fn read(keys: &Object, peft_type: &str, own: &[&str], layers: usize, [width, heads]: [usize; 2]) -> Result<VirtualTokens> {
        let shared = ["num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers"];
        check_keys(keys, peft_type, |key, value| match key {
            // An encoder-decoder has two.
            "num_transformer_submodules" => value == 1,
            key => shared.contains(&key) || own.contains(&key),
        })?;
        let expected = "a positive integer";
        let number = |key: &str| keys.required(key, expected, keys.size(key)?);
        for (key, expected) in [("token_dim", width), ("num_layers", layers)] {
            if keys.size(key)?.is_some_and(|found| found != expected) {
                return Err(keys.error(key, format!("{expected}, as of this model: an adapter of another base")));
            }
        }
        Ok(VirtualTokens {
            count: number("num_virtual_tokens")?,
            width,
            layers,
            heads: keys.size("num_attention_heads")?.unwrap_or(heads),
            base: keys.string("base_model_name_or_path")?,
            task_type: keys.string("task_type")?,
        })
    }

    /// The config, with what a method adds to it; keys sorted.
    pub fn to_json(&self, peft_type: &str, own: Value) -> Value {
        let shared = json!({
            "base_model_name_or_path": self.base,
            "inference_mode": true,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": self.count,
            "peft_type": peft_type,
            "task_type": self.task_type,
            "token_dim": self.width,
        });
        let (Value::Object(mut all), Value::Object(own)) = (shared, own) else { unreachable!("both are objects") };
        all.extend(own);
        all.sort_keys();
        Value::Object(all)
    }

    /// What an adapter calls its base.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }
}

/// So many of a text's tokens, said again where they are fewer.
///
/// # Errors
/// A text without tokens.
pub(super) fn ids(text: &[u32], count: usize) -> Result<Vec<u32>> {
    if text.is_empty() {
        return Err(Error::Data {
            message: "the text that virtual tokens begin as is empty: expected at least one token".into(),
        });
    }
    Ok(text.iter().copied().cycle().take(count).collect())
}
