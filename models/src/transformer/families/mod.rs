//! The families of decoder. A family is a file of this folder and its line in [`FAMILIES`]: what its `config.json` says, told as a
//! [`Blueprint`], and what its tensors are called.

mod gpt2;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use serde_json::{Map, Value};

use super::blueprint::Blueprint;
use crate::error::Result;
use crate::formats::json::Object;

/// Every family.
pub static FAMILIES: [&Family; 5] = [&llama::FAMILY, &mistral::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY, &gpt2::FAMILY];

/// A family of decoder.
pub struct Family {
    /// The name in a config's `model_type`.
    pub model_type: &'static str,
    /// The name in a config's `architectures`.
    pub class_name: &'static str,
    /// What its config calls the sizes.
    pub keys: Keys,
    /// What its weights are called.
    pub names: Names,
    /// Reads what the config says beside sizes and tokens, into a plain blueprint that has those.
    pub(super) read: fn(&Object, Blueprint) -> Result<Blueprint>,
    /// The keys of what is read so.
    pub(super) write: fn(&Blueprint) -> Map<String, Value>,
}

/// What a family's config calls the sizes that all families have.
#[derive(Clone, Copy)]
pub struct Keys {
    /// Rows of the embedding.
    pub vocabulary: &'static str,
    /// Width of the residual stream.
    pub hidden: &'static str,
    /// Width of the feed-forward layer's inside.
    pub inside: &'static str,
    /// Number of blocks.
    pub layers: &'static str,
    /// Number of query heads.
    pub heads: &'static str,
    /// The longest sequence.
    pub positions: &'static str,
}

/// What a family calls its modules, and how it stores them: the names of [`Decoder::parameters`](super::Decoder::parameters), of
/// adapters' targets and of weight files are these.
#[derive(Clone, Copy)]
pub struct Names {
    /// What makes vectors of tokens.
    pub embedding: &'static str,
    /// What makes vectors of positions; none where they are rotated.
    pub positions: Option<&'static str>,
    /// The list of blocks.
    pub blocks: &'static str,
    /// In a block, the norm before attention.
    pub attention_norm: &'static str,
    /// In a block.
    pub attention: &'static str,
    /// In attention, what makes queries, keys and values.
    pub projections: Projections,
    /// In attention, norms of each head's query and key.
    pub head_norms: [&'static str; 2],
    /// In attention, its last projection.
    pub output: &'static str,
    /// In a block, the norm before the feed-forward layer.
    pub feed_forward_norm: &'static str,
    /// In a block.
    pub feed_forward: &'static str,
    /// In the feed-forward layer, what its activation goes through; none where it is not gated.
    pub gate: Option<&'static str>,
    /// In the feed-forward layer, its first projection.
    pub up: &'static str,
    /// In the feed-forward layer, its last projection.
    pub down: &'static str,
    /// What IA3 rescales unless it is told: outputs, and the inputs of `down`.
    pub rescaled: &'static [&'static str],
    /// The last norm.
    pub norm: &'static str,
    /// Whether the matrices of linear layers are stored [inputs, outputs] in files, and not [outputs, inputs] as they are held.
    pub transposed: bool,
    /// What old files leave out at the beginning of names.
    pub optional: &'static str,
    /// Ends of names of tensors that some files carry although they follow from the config.
    pub follow: &'static [&'static str],
}

/// Three layers, or their rows joined in one.
#[derive(Clone, Copy)]
pub enum Projections {
    /// Of queries, keys and values.
    Separate([&'static str; 3]),
    /// Of all three, in this order.
    Fused(&'static str),
}

/// The output projection, where it is not the embedding.
pub const HEAD: &str = "lm_head";
/// What a reward model has in its place.
pub const SCORE: &str = "score";

impl Family {
    /// How transformers' classes end that give scores.
    pub(super) const SCORER: &str = "ForSequenceClassification";

    /// The name in the `architectures` of its reward models.
    pub(super) fn scorer_name(&self) -> String {
        let stem = self.class_name.trim_end_matches("ForCausalLM").trim_end_matches("LMHeadModel");
        format!("{stem}{}", Family::SCORER)
    }
}

impl Names {
    /// Whether a parameter lies the other way round in files.
    pub fn is_transposed(&self, parameter: &str, rank: usize) -> bool {
        let module = parameter.strip_suffix(".weight").unwrap_or(parameter);
        let is_linear = module != self.embedding && Some(module) != self.positions && module != HEAD && module != SCORE;
        self.transposed && rank == 2 && is_linear
    }
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type)
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.model_type == other.model_type
    }
}
