//! One block: attention and feed-forward, each behind a norm and added to the residual stream.

use wgtune_engine::{Tensor, ops};

use super::attention::{Attention, Positions};
use crate::error::Result;
use crate::formats::config::ModelConfig;
use crate::nn::{Linear, RmsNorm, Source};
use crate::peft::Tuning;

/// x + attention(norm(x)), then the same with the feed-forward layer.
#[derive(Clone)]
pub(super) struct Block {
    path: String,
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Block {
    pub fn build(config: &ModelConfig, layer: usize, source: &mut Source<'_>) -> Result<Block> {
        let path = format!("model.layers.{layer}");
        let epsilon = config.rms_norm_eps;
        Ok(Block {
            attention_norm: RmsNorm::build(format!("{path}.input_layernorm"), config.hidden_size, epsilon, source)?,
            attention: Attention::build(config, layer, &path, source)?,
            feed_forward_norm: RmsNorm::build(format!("{path}.post_attention_layernorm"), config.hidden_size, epsilon, source)?,
            feed_forward: FeedForward::build(config, &path, source)?,
            path,
        })
    }

    /// [B, T, H] to [B, T, H].
    pub fn forward(&self, x: &Tensor, at: &Positions, tuning: &dyn Tuning) -> Tensor {
        let attended = self.attention.forward(&self.attention_norm.forward(x), at, tuning);
        let x = ops::add(x, &tuning.sublayer(&self.path, "self_attn", attended));
        let fed = self.feed_forward.forward(&self.feed_forward_norm.forward(&x), tuning);
        ops::add(&x, &tuning.sublayer(&self.path, "mlp", fed))
    }

    pub fn parameters<'a>(&'a self, visit: &mut dyn FnMut(String, &'a Tensor)) {
        self.attention_norm.parameters(visit);
        self.attention.parameters(visit);
        self.feed_forward_norm.parameters(visit);
        self.feed_forward.linears().into_iter().for_each(|linear| linear.parameters(visit));
    }

    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.attention.linears().into_iter().chain(self.feed_forward.linears())
    }
}

/// SwiGLU (Shazeer 2020, arXiv:2002.05202): down(silu(gate(x)) * up(x)).
#[derive(Clone)]
struct FeedForward {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl FeedForward {
    fn build(config: &ModelConfig, path: &str, source: &mut Source<'_>) -> Result<FeedForward> {
        let (hidden, inside) = (config.hidden_size, config.intermediate_size);
        let mut linear = |name: &str, size| Linear::build(format!("{path}.mlp.{name}"), size, config.mlp_bias, source);
        Ok(FeedForward {
            gate: linear("gate_proj", [inside, hidden])?,
            up: linear("up_proj", [inside, hidden])?,
            down: linear("down_proj", [hidden, inside])?,
        })
    }

    fn forward(&self, x: &Tensor, tuning: &dyn Tuning) -> Tensor {
        let inside = ops::swiglu(&self.gate.forward(x, tuning), &self.up.forward(x, tuning));
        self.down.forward(&inside, tuning)
    }

    fn linears(&self) -> [&Linear; 3] {
        [&self.gate, &self.up, &self.down]
    }
}
