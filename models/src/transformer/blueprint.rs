//! What a decoder is, told as data: Hugging Face's `config.json` and `generation_config.json`.

use std::path::Path;

use serde_json::{Value, json};
use wgtune_engine::DType;

use super::families::{FAMILIES, Family};
use crate::error::{Error, Result};
use crate::formats::files::write_bytes;
use crate::formats::json::Object;
use crate::formats::rope::{RopeConfig, RopeScaling, rope_frequencies};
use crate::nn::NormKind;

/// The most layers that a config may have: something is kept for each. The deepest models have a few hundred.
const MOST_LAYERS: usize = 65_536;
/// The widest head: a frequency is kept for each pair of it. The widest have 512.
const WIDEST_HEAD: usize = 65_536;

/// How a token knows its place.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated.
    Rotary(RopeConfig),
    /// A vector for each place is added to the embedding.
    Learned,
}

/// What a feed-forward layer bends its inside by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x).
    Silu,
    /// x Phi(x).
    Gelu,
    /// GELU by tanh's approximation.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

impl Activation {
    const NAMES: [(&str, Activation); 6] = [
        ("silu", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("swish", Activation::Silu),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
    ];

    /// The one that configs call so.
    pub(super) fn named(name: &str) -> Option<Activation> {
        Activation::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    pub(super) fn name(self) -> &'static str {
        Activation::NAMES.iter().find(|(_, activation)| *activation == self).expect("each has a name").0
    }

    pub(super) fn known() -> String {
        Activation::NAMES.map(|(name, _)| name).join(", ")
    }
}

/// What a decoder is: every number that its code needs, whichever family it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// The family.
    pub family: &'static Family,
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
    /// Width of a head; even where positions are rotary, which turn pairs.
    pub head_dim: usize,
    /// The norms of the residual stream.
    pub norm: NormKind,
    /// Added under the root in every norm.
    pub epsilon: f64,
    /// How tokens know their place.
    pub positions: Positions,
    /// The feed-forward layer's.
    pub activation: Activation,
    /// The longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the output projection is the embedding, transposed.
    pub tie_word_embeddings: bool,
    /// Whether it gives each token a score, as a reward model does, and not the logits of a vocabulary.
    pub scores: bool,
    /// Whether the query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// Whether attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward projections have a bias.
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

impl Blueprint {
    /// Reads `config.json`, and `generation_config.json` if there is one, of a model's folder.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`] for the files; [`Error::Value`] naming the key for an unknown
    /// architecture, a missing or impossible size, and whatever this crate does not support.
    pub fn open(directory: &Path) -> Result<Blueprint> {
        let path = directory.join("config.json");
        let mut config = Blueprint::from_object(&Object::read(&path)?)?;
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
    /// As [`open`](Blueprint::open).
    pub fn from_json(path: &Path, json: Value) -> Result<Blueprint> {
        Blueprint::from_object(&Object::new(path, json)?)
    }

    fn from_object(keys: &Object) -> Result<Blueprint> {
        let known = FAMILIES.map(|family| family.model_type).join(", ");
        let model_type = keys.string("model_type")?;
        let model_type = keys.required("model_type", &format!("one of {known}"), model_type)?;
        let family = FAMILIES.into_iter().find(|family| family.model_type == model_type);
        let family = family.ok_or_else(|| keys.error("model_type", format!("one of {known}")))?;
        if keys.get("quantization_config").is_some() {
            return Err(keys.error("quantization_config", "none: weights in F32, F16 or BF16"));
        }
        let blueprint = (family.read)(keys, Blueprint::plain(family, keys)?)?;
        blueprint.check(keys)?;
        Ok(blueprint)
    }

    /// What all families read alike, and nothing else.
    fn plain(family: &'static Family, keys: &Object) -> Result<Blueprint> {
        let size = |key: &str| keys.required(key, "a positive integer", keys.size(key)?);
        let (layers, heads, hidden_size) = (size(family.keys.layers)?, size(family.keys.heads)?, size(family.keys.hidden)?);
        if layers > MOST_LAYERS {
            return Err(keys.error(family.keys.layers, format!("at most {MOST_LAYERS}")));
        }
        Ok(Blueprint {
            family,
            vocab_size: size(family.keys.vocabulary)?,
            hidden_size,
            intermediate_size: 0,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim: keys.size("head_dim")?.unwrap_or(if hidden_size.is_multiple_of(heads) { hidden_size / heads } else { 0 }),
            norm: NormKind::Rms,
            epsilon: 0.0,
            positions: Positions::Learned,
            activation: Activation::Silu,
            max_position_embeddings: size(family.keys.positions)?,
            tie_word_embeddings: false,
            scores: scores(keys)?,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            windows: vec![None; layers],
            bos_token_id: keys.id("bos_token_id")?,
            eos_token_ids: keys.ids("eos_token_id")?,
            pad_token_id: keys.id("pad_token_id")?,
            initializer_range: keys.positive("initializer_range")?.unwrap_or(0.02),
            dtype: dtype(keys)?,
        })
    }

    /// The window of every layer: those from `first` on have it, unless the config lists the layers' types.
    pub(super) fn windowed(&self, keys: &Object, window: Option<usize>, first: usize) -> Result<Vec<Option<usize>>> {
        let layers = self.num_hidden_layers;
        let Some(types) = keys.strings("layer_types")?.filter(|_| window.is_some()) else {
            return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
        };
        let expected = format!("{layers} times `full_attention` or `sliding_attention`");
        if types.len() != layers {
            return Err(keys.error("layer_types", expected));
        }
        let window_of = |layer_type: &String| match layer_type.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => Ok(window),
            _ => Err(keys.error("layer_types", expected.as_str())),
        };
        types.iter().map(window_of).collect()
    }

    /// The window of the layers that have one.
    pub(super) fn window(&self) -> Option<usize> {
        self.windows.iter().copied().flatten().next()
    }

    /// What no decoder can be. Sizes above zero are already sure.
    fn check(&self, keys: &Object) -> Result<()> {
        if self.head_dim == 0 {
            let expected = format!("a divisor of `{}`, which is {}", self.family.keys.hidden, self.hidden_size);
            return Err(keys.error(self.family.keys.heads, expected));
        }
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(groups) {
            let expected = format!("a divisor of `num_attention_heads`, which is {heads}");
            return Err(keys.error("num_key_value_heads", expected));
        }
        if self.head_dim > WIDEST_HEAD {
            let expected = format!("at most {WIDEST_HEAD} for the width of a head (it is {})", self.head_dim);
            return Err(keys.error("head_dim", expected));
        }
        let Positions::Rotary(rope) = &self.positions else { return Ok(()) };
        if !self.head_dim.is_multiple_of(2) {
            let expected = format!("an even number, since rotary embedding turns pairs (it is {})", self.head_dim);
            return Err(keys.error("head_dim", expected));
        }
        self.check_rope(rope, keys)
    }

    /// Every angle must be a number, at any position. Powers and quotients of numbers that are none too odd may not be.
    fn check_rope(&self, rope: &RopeConfig, keys: &Object) -> Result<()> {
        let last = u32::MAX as usize;
        for length in [self.max_position_embeddings, last] {
            let (frequencies, factor) = rope_frequencies(rope, self.head_dim, self.max_position_embeddings, length);
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
        let Positions::Rotary(rope) = &self.positions else { return Some(longest) };
        match &rope.scaling {
            RopeScaling::Default | RopeScaling::Llama3 { .. } => Some(longest),
            RopeScaling::Linear { factor } => Some(stretched(longest, *factor)),
            RopeScaling::Yarn(yarn) => Some(stretched(yarn.original_max_position_embeddings.unwrap_or(longest), yarn.factor)),
            RopeScaling::Dynamic { .. } => None,
        }
    }

    /// Whether a text may be longer than [`longest_text`](Self::longest_text): there is no place for it where positions are learned.
    pub fn may_go_beyond(&self) -> bool {
        self.positions != Positions::Learned
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
        let (keys, dtype) = (self.family.keys, self.dtype.map(dtype_name));
        // By it transformers finds a text's last token, and takes one that ends texts for padding too: without it, it asks for one.
        let padding = self.pad_token_id.filter(|id| !self.scores || !self.eos_token_ids.contains(id));
        let mut config = json!({
            "architectures": [if self.scores { self.family.scorer_name() } else { self.family.class_name.into() }],
            "model_type": self.family.model_type,
            keys.vocabulary: self.vocab_size,
            keys.hidden: self.hidden_size,
            keys.inside: self.intermediate_size,
            keys.layers: self.num_hidden_layers,
            keys.heads: self.num_attention_heads,
            keys.positions: self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": one_or_list(&self.eos_token_ids),
            "pad_token_id": padding,
            "initializer_range": self.initializer_range,
            "dtype": dtype,
            "torch_dtype": dtype,
            "use_cache": true,
        });
        let all = config.as_object_mut().expect("an object");
        if self.scores {
            // How transformers says that there is one label.
            all.extend([("id2label".into(), json!({"0": "LABEL_0"})), ("label2id".into(), json!({"LABEL_0": 0}))]);
        }
        all.append(&mut (self.family.write)(self));
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

/// What configs call a layer with this window.
pub(super) fn layer_type(window: Option<usize>) -> &'static str {
    match window {
        Some(_) => "sliding_attention",
        None => "full_attention",
    }
}

/// Whether the config is a reward model's. One of several labels is refused.
fn scores(keys: &Object) -> Result<bool> {
    let classes = keys.strings("architectures")?.unwrap_or_default();
    let scores = classes.iter().any(|class| class.ends_with(Family::SCORER));
    let labels = |key: &str| {
        keys.get(key).and_then(|labels| labels.as_object().map(serde_json::Map::len).or(labels.as_u64().map(|n| n as usize)))
    };
    // transformers takes two where neither is there.
    let count = labels("num_labels").or(labels("id2label")).unwrap_or(2);
    match scores && count != 1 {
        true => Err(keys.error("id2label", "one label, whose logit is the score of a reward model")),
        false => Ok(scores),
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
#[path = "blueprint_tests.rs"]
mod tests;
