//! Self-attention with grouped heads and rotary positions.

use wgtune_engine::{Tensor, ops};

use super::cache::Cached;
use super::rope::Tables;
use crate::error::Result;
use crate::formats::config::ModelConfig;
use crate::nn::{Linear, RmsNorm, Source};
use crate::peft::Tuning;

/// The attention of one block.
#[derive(Clone)]
pub(super) struct Attention {
    layer: usize,
    head_dim: usize,
    window: Option<usize>,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    /// Norms of each head's query and key (Qwen3).
    norms: Option<(RmsNorm, RmsNorm)>,
}

/// What all blocks of one pass share.
#[derive(Clone)]
pub(super) struct Positions {
    /// [B, T] u32.
    pub positions: Tensor,
    pub tables: Tables,
    /// [B] u32: how many tokens of each row are real.
    pub lengths: Option<Tensor>,
    /// [B, T] u32: which packed text each token belongs to.
    pub segments: Option<Tensor>,
    /// Where the tokens before these are, and these go.
    pub cached: Option<Cached>,
}

impl Attention {
    pub fn build(config: &ModelConfig, layer: usize, path: &str, source: &mut Source<'_>) -> Result<Attention> {
        let path = format!("{path}.self_attn");
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let hidden = config.hidden_size;
        let mut linear = |name: &str, size, bias| Linear::build(format!("{path}.{name}"), size, bias, source);
        let query = linear("q_proj", [queries, hidden], config.qkv_bias)?;
        let key = linear("k_proj", [keys, hidden], config.qkv_bias)?;
        let value = linear("v_proj", [keys, hidden], config.qkv_bias)?;
        let output = linear("o_proj", [hidden, queries], config.output_bias)?;
        let mut norm = |name: &str| RmsNorm::build(format!("{path}.{name}"), config.head_dim, config.rms_norm_eps, source);
        let norms = if config.qk_norm { Some((norm("q_norm")?, norm("k_norm")?)) } else { None };
        Ok(Attention { layer, head_dim: config.head_dim, window: config.windows[layer], query, key, value, output, norms })
    }

    /// [B, T, H] to [B, T, H].
    pub fn forward(&self, x: &Tensor, at: &Positions, tuning: &dyn Tuning) -> Tensor {
        let heads = |projection: &Linear| {
            let y = projection.forward(x, tuning);
            y.reshape([x.size(0), x.size(1), y.last_size() / self.head_dim, self.head_dim])
        };
        let (query, key, value) = (heads(&self.query), heads(&self.key), heads(&self.value));
        let Tables { cos, sin, .. } = &at.tables;
        let rotate = |x: &Tensor, norm: Option<&RmsNorm>| match norm {
            Some(norm) => norm.forward_rotated(x, cos, sin, &at.positions),
            None => ops::rope(x, cos, sin, &at.positions),
        };
        let (query_norm, key_norm) = self.norms.as_ref().map(|(query, key)| (query, key)).unzip();
        let (query, key) = (rotate(&query, query_norm), rotate(&key, key_norm));
        let (key, value) = tuning.key_value(self.layer, key, value);
        let y = match &at.cached {
            Some(cached) => cached.attention(self.layer, &query, [&key, &value], self.window),
            None => {
                let (lengths, segments) = (at.lengths.clone(), at.segments.clone());
                let mask = ops::Mask { causal: true, window: self.window, lengths, segments, ..ops::Mask::default() };
                ops::attention(&query, &key, &value, &mask)
            }
        };
        self.output.forward(&y.reshape([x.size(0), x.size(1), y.size(2) * self.head_dim]), tuning)
    }

    pub fn parameters<'a>(&'a self, visit: &mut dyn FnMut(String, &'a Tensor)) {
        for linear in [&self.query, &self.key, &self.value, &self.output] {
            linear.parameters(visit);
        }
        if let Some((query, key)) = &self.norms {
            query.parameters(visit);
            key.parameters(visit);
        }
    }

    pub fn linears(&self) -> [&Linear; 4] {
        [&self.query, &self.key, &self.value, &self.output]
    }
}
