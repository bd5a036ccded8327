//! A model's shape and parameters: Hugging Face's `config.json` and `generation_config.json`.

use std::path::Path;

use serde_json::{Value, json};
use wgtune_engine::DType;

use super::files::write_bytes;
use super::json::Object;
use super::rope::{RopeConfig, RopeScaling, rope_frequencies};
use crate::error::{Error, Result};

/// The most layers that a config may have: something is kept for each. The deepest models have a few hundred.
const MOST_LAYERS: usize = 65_536;
/// The widest head: a frequency is kept for each pair of it. The widest have 512.
const WIDEST_HEAD: usize = 65_536;

/// The families of decoder that are known. They share one shape and differ in biases, in the norm on
/// queries and keys, and in which layers look at a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 1 to 3, SmolLM and all that copy them.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: Llama with biases on query, key and value.
    Qwen2,
    /// Qwen 3: Llama with an RMS norm on each head's queries and keys.
    Qwen3,
}

/// What a decoder is: every number that its code needs, whichever family it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer's inside.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even, since rotary embedding turns pairs.
    pub head_dim: usize,
    /// Added to the mean square under the root in every RMS norm.
    pub rms_norm_eps: f64,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// The longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the output projection is the embedding, transposed.
    pub tie_word_embeddings: bool,
    /// Whether the query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Whether attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether the three feed-forward projections have a bias.
    pub mlp_bias: bool,
    /// Whether each head's queries and keys are RMS-normed before they are rotated.
    pub qk_norm: bool,
    /// For every layer, how many of the latest positions it attends to, itself included; `None` is all.
    pub windows: Vec<Option<usize>>,
    /// The token that opens a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text, `generation_config.json`'s included.
    pub eos_token_ids: Vec<u32>,
    /// The token that padding is filled with.
    pub pad_token_id: Option<u32>,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// The type that the weights are stored in, where the config says.
    pub dtype: Option<DType>,
}

impl Architecture {
    const ALL: [Architecture; 4] = [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];

    /// The name in a config's `architectures`.
    pub fn class_name(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Mistral => "MistralForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The name in a config's `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    fn from_config(config: &Object) -> Result<Architecture> {
        let known = Architecture::ALL.map(Architecture::model_type).join(", ");
        let model_type = config.string("model_type")?;
        let model_type = config.required("model_type", &format!("one of {known}"), model_type)?;
        Architecture::ALL
            .into_iter()
            .find(|architecture| architecture.model_type() == model_type)
            .ok_or_else(|| config.error("model_type", format!("one of {known}")))
    }
}

impl ModelConfig {
    /// Reads `config.json`, and `generation_config.json` if there is one, of a model's folder.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`] for the files; [`Error::Value`] naming the key for an unknown
    /// architecture, a missing or impossible size, and whatever this crate does not support.
    pub fn open(directory: &Path) -> Result<ModelConfig> {
        let path = directory.join("config.json");
        let mut config = ModelConfig::from_object(&Object::read(&path)?)?;
        let generation = Object::read_optional(&directory.join("generation_config.json"))?;
        for id in generation.ids("eos_token_id")? {
            if !config.eos_token_ids.contains(&id) {
                config.eos_token_ids.push(id);
            }
        }
        config.bos_token_id = config.bos_token_id.or(generation.id("bos_token_id")?);
        config.pad_token_id = config.pad_token_id.or(generation.id("pad_token_id")?);
        Ok(config)
    }

    /// Reads a parsed `config.json`; `path` is what errors name.
    ///
    /// # Errors
    /// As [`open`](ModelConfig::open).
    pub fn from_json(path: &Path, json: Value) -> Result<ModelConfig> {
        ModelConfig::from_object(&Object::new(path, json)?)
    }

    fn from_object(keys: &Object) -> Result<ModelConfig> {
        let architecture = Architecture::from_config(keys)?;
        reject_unsupported(keys)?;
        let size = |key: &str| keys.required(key, "a positive integer", keys.size(key)?);
        let flag = |key: &str| Ok::<_, Error>(keys.bool(key)?.unwrap_or(false));

        let hidden_size = size("hidden_size")?;
        let num_hidden_layers = size("num_hidden_layers")?;
        if num_hidden_layers > MOST_LAYERS {
            return Err(keys.error("num_hidden_layers", format!("at most {MOST_LAYERS}")));
        }
        let num_attention_heads = size("num_attention_heads")?;
        let attention_bias = flag("attention_bias")?;
        let config = ModelConfig {
            architecture,
            vocab_size: size("vocab_size")?,
            hidden_size,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: keys.size("num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim: head_dim(keys, architecture, hidden_size, num_attention_heads)?,
            rms_norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6),
            rope: RopeConfig::from_config(keys)?,
            max_position_embeddings: size("max_position_embeddings")?,
            tie_word_embeddings: flag("tie_word_embeddings")?,
            qkv_bias: architecture == Architecture::Qwen2 || attention_bias,
            output_bias: architecture != Architecture::Qwen2 && attention_bias,
            mlp_bias: flag("mlp_bias")?,
            qk_norm: architecture == Architecture::Qwen3,
            windows: windows(keys, architecture, num_hidden_layers)?,
            bos_token_id: keys.id("bos_token_id")?,
            eos_token_ids: keys.ids("eos_token_id")?,
            pad_token_id: keys.id("pad_token_id")?,
            initializer_range: keys.positive("initializer_range")?.unwrap_or(0.02),
            dtype: dtype(keys)?,
        };
        config.check(keys)?;
        Ok(config)
    }

    /// What no decoder can be. Sizes above zero are already sure.
    fn check(&self, keys: &Object) -> Result<()> {
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(groups) {
            let expected = format!("a divisor of `num_attention_heads`, which is {heads}");
            return Err(keys.error("num_key_value_heads", expected));
        }
        if !self.head_dim.is_multiple_of(2) {
            let expected = format!("an even number, since rotary embedding turns pairs (it is {})", self.head_dim);
            return Err(keys.error("head_dim", expected));
        }
        if self.head_dim > WIDEST_HEAD {
            let expected = format!("at most {WIDEST_HEAD} for the width of a head (it is {})", self.head_dim);
            return Err(keys.error("head_dim", expected));
        }
        self.check_rope(keys)
    }

    /// Every angle must be a number, at any position. Powers and quotients of numbers that are none too odd may not be.
    fn check_rope(&self, keys: &Object) -> Result<()> {
        let last = u32::MAX as usize;
        for length in [self.max_position_embeddings, last] {
            let (frequencies, factor) = rope_frequencies(&self.rope, self.head_dim, self.max_position_embeddings, length);
            if !frequencies.iter().all(|frequency| (frequency * last as f64).is_finite()) || !(factor as f32).is_finite() {
                let given = |key: &&str| keys.get(key).is_some();
                let key = ["rope_parameters", "rope_scaling"].into_iter().find(given).unwrap_or("rope_theta");
                return Err(keys.error(key, "numbers that give finite angles"));
            }
        }
        Ok(())
    }

    /// Tokens of the longest text that the model takes: those it was made for, and what its rope scaling stretches them to; `None`
    /// where the scaling follows any length.
    pub fn longest_text(&self) -> Option<usize> {
        let longest = self.max_position_embeddings;
        let stretched = |length: usize, factor: f64| longest.max((length as f64 * factor) as usize);
        match &self.rope.scaling {
            RopeScaling::Default | RopeScaling::Llama3 { .. } => Some(longest),
            RopeScaling::Linear { factor } => Some(stretched(longest, *factor)),
            RopeScaling::Yarn(yarn) => Some(stretched(yarn.original_max_position_embeddings.unwrap_or(longest), yarn.factor)),
            RopeScaling::Dynamic { .. } => None,
        }
    }

    /// Checks that a text of `tokens` tokens is not longer than [`longest_text`](Self::longest_text).
    ///
    /// # Errors
    /// [`Error::Data`] with `what` is too long, and both lengths.
    pub fn check_length(&self, what: &str, tokens: usize) -> Result<()> {
        match self.longest_text() {
            Some(longest) if tokens > longest => {
                let message = format!("{what} is {tokens} tokens long, and the model was made for {longest} at most");
                Err(Error::Data { message })
            }
            _ => Ok(()),
        }
    }

    /// `config.json`'s content, as transformers 5 writes it, with the older spellings of `dtype` and rope
    /// beside the new ones.
    pub fn to_json(&self) -> Value {
        let rope = self.rope.to_parameters();
        let older_rope = match rope["rope_type"].as_str() {
            Some("default") => Value::Null,
            _ => Value::Object(rope.clone()),
        };
        let dtype = self.dtype.map(dtype_name);
        let mut config = json!({
            "architectures": [self.architecture.class_name()],
            "model_type": self.architecture.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_parameters": rope,
            "rope_theta": self.rope.theta,
            "rope_scaling": older_rope,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.qkv_bias,
            "attention_dropout": 0.0,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": one_or_list(&self.eos_token_ids),
            "pad_token_id": self.pad_token_id,
            "initializer_range": self.initializer_range,
            "dtype": dtype,
            "torch_dtype": dtype,
            "use_cache": true,
        });
        let window = self.windows.iter().copied().flatten().next();
        match self.architecture {
            Architecture::Llama => {}
            Architecture::Mistral => config["sliding_window"] = json!(window),
            Architecture::Qwen2 | Architecture::Qwen3 => {
                let first = self.windows.iter().position(Option::is_some);
                config["use_sliding_window"] = json!(window.is_some());
                config["sliding_window"] = json!(window);
                config["max_window_layers"] = json!(first.unwrap_or(self.num_hidden_layers));
                config["layer_types"] = self.windows.iter().copied().map(layer_type).collect();
            }
        }
        config
    }

    /// Writes `config.json` and `generation_config.json` into a model's folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, directory: &Path) -> Result<()> {
        let generation = json!({
            "bos_token_id": self.bos_token_id,
            "eos_token_id": one_or_list(&self.eos_token_ids),
            "pad_token_id": self.pad_token_id,
        });
        for (name, json) in [("config.json", self.to_json()), ("generation_config.json", generation)] {
            write_bytes(&directory.join(name), format!("{json:#}\n").as_bytes())?;
        }
        Ok(())
    }
}

fn reject_unsupported(keys: &Object) -> Result<()> {
    match keys.get("hidden_act").map(Value::as_str) {
        None | Some(Some("silu" | "swish")) => {}
        Some(_) => return Err(keys.error("hidden_act", "\"silu\", the only activation known here")),
    }
    if keys.get("quantization_config").is_some() {
        return Err(keys.error("quantization_config", "none: weights in F32, F16 or BF16"));
    }
    Ok(())
}

fn head_dim(keys: &Object, architecture: Architecture, hidden_size: usize, heads: usize) -> Result<usize> {
    match keys.size("head_dim")? {
        Some(given) => Ok(given),
        // The value that transformers takes for Qwen 3 whatever the other sizes are.
        None if architecture == Architecture::Qwen3 => Ok(128),
        None if hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        None => {
            let expected = format!("a divisor of `hidden_size`, which is {hidden_size}");
            Err(keys.error("num_attention_heads", expected))
        }
    }
}

fn windows(keys: &Object, architecture: Architecture, layers: usize) -> Result<Vec<Option<usize>>> {
    let given = keys.size("sliding_window")?;
    let (window, first) = match architecture {
        Architecture::Llama => (None, 0),
        // An absent key, unlike `null`, means the first Mistral's window.
        Architecture::Mistral if !keys.map.contains_key("sliding_window") => (Some(4096), 0),
        Architecture::Mistral => (given, 0),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let used = keys.bool("use_sliding_window")?.unwrap_or(false);
            let first = keys.optional("max_window_layers", "a number of layers", Value::as_u64)?;
            (given.filter(|_| used), first.unwrap_or(28) as usize)
        }
    };
    let Some(types) = keys.strings("layer_types")?.filter(|_| window.is_some()) else {
        return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    let expected = format!("{layers} times `full_attention` or `sliding_attention`");
    if types.len() != layers {
        return Err(keys.error("layer_types", expected));
    }
    types
        .iter()
        .map(|layer_type| match layer_type.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => Ok(window),
            _ => Err(keys.error("layer_types", expected.as_str())),
        })
        .collect()
}

fn layer_type(window: Option<usize>) -> &'static str {
    match window {
        Some(_) => "sliding_attention",
        None => "full_attention",
    }
}

fn dtype(keys: &Object) -> Result<Option<DType>> {
    let key = if keys.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match keys.string(key)?.as_deref() {
        None => Ok(None),
        Some("float32") => Ok(Some(DType::F32)),
        Some("float16") => Ok(Some(DType::F16)),
        Some("bfloat16") => Ok(Some(DType::BF16)),
        Some(_) => Err(keys.error(key, "float32, float16 or bfloat16")),
    }
}

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::U32 => "uint32",
    }
}

fn one_or_list(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
