//! One block: attention and feed-forward, each behind a norm and added to the residual stream.

use wgtune_engine::{Tensor, ops};

use super::attention::{Attention, Positions};
use super::blueprint::{Activation, Blueprint};
use crate::error::Result;
use crate::nn::{Linear, Norm, Source, Tuning};

/// x + attention(norm(x)), then the same with the feed-forward layer.
#[derive(Clone)]
pub(super) struct Block {
    path: String,
    attention_norm: Norm,
    attention: Attention,
    feed_forward_norm: Norm,
    feed_forward: FeedForward,
}

impl Block {
    pub fn build(blueprint: &Blueprint, layer: usize, source: &mut Source<'_>) -> Result<Block> {
        let names = &blueprint.family.names;
        let path = format!("{}.{layer}", names.blocks);
        let norm = |name: &str, source: &mut Source<'_>| {
            Norm::build(format!("{path}.{name}"), blueprint.norm, blueprint.hidden_size, blueprint.epsilon, source)
        };
        Ok(Block {
            attention_norm: norm(names.attention_norm, source)?,
            attention: Attention::build(blueprint, layer, &path, source)?,
            feed_forward_norm: norm(names.feed_forward_norm, source)?,
            feed_forward: FeedForward::build(blueprint, &path, source)?,
            path,
        })
    }

    /// [B, T, H] to [B, T, H].
    pub fn forward(&self, x: &Tensor, at: &Positions, tuning: &dyn Tuning) -> Tensor {
        let attended = self.attention.forward(&self.attention_norm.forward(x), at, tuning);
        let x = ops::add(x, &tuning.sublayer(&self.path, "self_attn", &attended).unwrap_or(attended));
        let fed = self.feed_forward.forward(&self.feed_forward_norm.forward(&x), tuning);
        ops::add(&x, &tuning.sublayer(&self.path, "mlp", &fed).unwrap_or(fed))
    }

    pub fn parameters<'a>(&'a self, visit: &mut dyn FnMut(String, &'a Tensor)) {
        self.attention_norm.parameters(visit);
        self.attention.parameters(visit);
        self.feed_forward_norm.parameters(visit);
        self.feed_forward.linears().for_each(|linear| linear.parameters(visit));
    }

    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.attention.linears().chain(self.feed_forward.linears())
    }
}

/// down(activation(up(x))), or gated down(activation(gate(x)) * up(x)), which is SwiGLU (Shazeer 2020, arXiv:2002.05202) where the
/// activation is SiLU.
#[derive(Clone)]
struct FeedForward {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    fn build(blueprint: &Blueprint, path: &str, source: &mut Source<'_>) -> Result<FeedForward> {
        let names = &blueprint.family.names;
        let (hidden, inside) = (blueprint.hidden_size, blueprint.intermediate_size);
        let path = format!("{path}.{}", names.feed_forward);
        let mut linear = |name: &str, size| Linear::build(format!("{path}.{name}"), size, blueprint.mlp_bias, source);
        Ok(FeedForward {
            gate: names.gate.map(|name| linear(name, [inside, hidden])).transpose()?,
            up: linear(names.up, [inside, hidden])?,
            down: linear(names.down, [hidden, inside])?,
            activation: blueprint.activation,
        })
    }

    fn forward(&self, x: &Tensor, tuning: &dyn Tuning) -> Tensor {
        let activate = match self.activation {
            Activation::Silu => ops::silu,
            Activation::Gelu => ops::gelu,
            Activation::GeluTanh => ops::gelu_tanh,
            Activation::Relu => ops::relu,
        };
        let inside = match &self.gate {
            None => activate(&self.up.tuned(x, tuning)),
            Some(gate) if self.activation == Activation::Silu => ops::swiglu(&gate.tuned(x, tuning), &self.up.tuned(x, tuning)),
            Some(gate) => ops::mul(&activate(&gate.tuned(x, tuning)), &self.up.tuned(x, tuning)),
        };
        self.down.tuned(&inside, tuning)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.gate.iter().chain([&self.up, &self.down])
    }
}
