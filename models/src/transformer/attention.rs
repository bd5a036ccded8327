//! Self-attention with grouped heads.

use wgtune_engine::{Tensor, ops};

use super::blueprint::Blueprint;
use super::cache::Cached;
use super::families::Projections;
use super::rope::Tables;
use crate::error::Result;
use crate::nn::{Linear, Norm, NormKind, Source, Tuning, joined, rows_of};

/// The attention of one block.
#[derive(Clone)]
pub(super) struct Attention {
    layer: usize,
    head_dim: usize,
    window: Option<usize>,
    heads: usize,
    key_heads: usize,
    /// Of queries, keys and values, or one whose outputs are all three.
    projections: Vec<Linear>,
    output: Linear,
    /// Norms of each head's query and key (Qwen3).
    norms: Option<(Norm, Norm)>,
}

/// What all blocks of one pass share.
#[derive(Clone)]
pub(super) struct Positions {
    /// [B, T] u32.
    pub positions: Tensor,
    /// Where positions are rotary.
    pub tables: Option<Tables>,
    /// [B, T] u32: which packed text each token belongs to.
    pub segments: Option<Tensor>,
    /// Where the tokens before these are, and these go.
    pub cached: Option<Cached>,
}

impl Attention {
    pub fn build(blueprint: &Blueprint, layer: usize, path: &str, source: &mut Source<'_>) -> Result<Attention> {
        let names = &blueprint.family.names;
        let path = format!("{path}.{}", names.attention);
        let Blueprint { num_attention_heads: heads, num_key_value_heads: key_heads, head_dim, hidden_size, .. } = *blueprint;
        let (queries, keys) = (heads * head_dim, key_heads * head_dim);
        let mut linear = |name: &str, size, bias| Linear::build(format!("{path}.{name}"), size, bias, source);
        let mut projection = |name: &str, outputs| linear(name, [outputs, hidden_size], blueprint.qkv_bias);
        let projections = match names.projections {
            Projections::Separate([query, key, value]) => {
                vec![projection(query, queries)?, projection(key, keys)?, projection(value, keys)?]
            }
            Projections::Fused(name) => vec![projection(name, queries + 2 * keys)?],
        };
        let output = linear(names.output, [hidden_size, queries], blueprint.output_bias)?;
        let mut norm = |name: &str| Norm::build(format!("{path}.{name}"), NormKind::Rms, head_dim, blueprint.epsilon, source);
        let [query, key] = names.head_norms;
        let norms = if blueprint.qk_norm { Some((norm(query)?, norm(key)?)) } else { None };
        Ok(Attention { layer, head_dim, window: blueprint.windows[layer], heads, key_heads, projections, output, norms })
    }

    /// Queries [B, T, Q, D], keys and values [B, T, KV, D].
    fn project(&self, x: &Tensor, tuning: &dyn Tuning) -> [Tensor; 3] {
        let outputs: Vec<Tensor> = self.projections.iter().map(|layer| layer.tuned(x, tuning)).collect();
        let heads = [self.heads, self.key_heads, self.key_heads];
        let begins = [0, self.heads, self.heads + self.key_heads].map(|heads| heads * self.head_dim);
        std::array::from_fn(|part| {
            let y = match &outputs[..] {
                [joined] => joined.slice(2, begins[part]..begins[part] + heads[part] * self.head_dim),
                separate => separate[part].clone(),
            };
            y.reshape([x.size(0), x.size(1), heads[part], self.head_dim])
        })
    }

    /// [B, T, H] to [B, T, H].
    pub fn forward(&self, x: &Tensor, at: &Positions, tuning: &dyn Tuning) -> Tensor {
        let [query, key, value] = self.project(x, tuning);
        let (query, key) = match (&at.tables, &self.norms) {
            (Some(Tables { cos, sin, .. }), Some((of_query, of_key))) => {
                let rotate = |norm: &Norm, x| norm.forward_rotated(x, cos, sin, &at.positions);
                (rotate(of_query, &query), rotate(of_key, &key))
            }
            (Some(Tables { cos, sin, .. }), None) => {
                let rotate = |x| ops::rope(x, cos, sin, &at.positions);
                (rotate(&query), rotate(&key))
            }
            (None, Some((of_query, of_key))) => (of_query.forward(&query), of_key.forward(&key)),
            (None, None) => (query, key),
        };
        let y = match &at.cached {
            Some(cached) => cached.attention(self.layer, &query, [&key, &value], self.window),
            None => {
                let mut first = 0;
                let attended = tuning.prefixes(self.layer, x.size(0)).into_iter().map(|(count, prefix)| {
                    let rows = first..first + count;
                    first += count;
                    let own = [&query, &key, &value].map(|x| rows_of(x, &rows));
                    self.attend(own, prefix, at.segments.as_ref().map(|segments| rows_of(segments, &rows)))
                });
                joined(attended.collect())
            }
        };
        self.output.tuned(&y.reshape([x.size(0), x.size(1), y.size(2) * self.head_dim]), tuning)
    }

    /// Attention of rows behind what may stand before all of them.
    fn attend(&self, [query, key, value]: [Tensor; 3], prefix: Option<[Tensor; 2]>, segments: Option<Tensor>) -> Tensor {
        let start = prefix.as_ref().map_or(0, |[keys, _]| keys.size(0));
        let [key, value] = match prefix {
            Some([keys, values]) => [behind(&keys, &key), behind(&values, &value)],
            None => [key, value],
        };
        let mask = ops::Mask { causal: true, window: self.window, start, segments, ..ops::Mask::default() };
        ops::attention(&query, &key, &value, &mask)
    }

    pub fn parameters<'a>(&'a self, visit: &mut dyn FnMut(String, &'a Tensor)) {
        self.linears().for_each(|linear| linear.parameters(visit));
        if let Some((query, key)) = &self.norms {
            query.parameters(visit);
            key.parameters(visit);
        }
    }

    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.projections.iter().chain([&self.output])
    }
}

/// Every row's keys, or values, [B, T, KV, D] behind those of a prefix [N, KV, D] that all rows share.
fn behind(prefix: &Tensor, own: &Tensor) -> Tensor {
    let [length, heads, width] = [0, 1, 2].map(|axis| prefix.size(axis));
    ops::cat(&[&prefix.reshape([1, length, heads, width]).expand([own.size(0), length, heads, width]), own], 1)
}
