//! The layers that transformers are made of. Each knows the name of its parameters in a Hugging Face model.

use std::ops::Range;

use wgtune_engine::{Tensor, ops};

use crate::error::Result;

/// Where parameters come from: a weight file, a random generator, another model. Called with each parameter's name and shape.
pub type Source<'a> = dyn FnMut(&str, &[usize]) -> Result<Tensor> + 'a;

/// A vector for each token.
#[derive(Clone)]
pub struct Embedding {
    /// The module's path, as in `model.embed_tokens`.
    pub path: String,
    /// [V, H].
    pub weight: Tensor,
}

impl Embedding {
    /// The embedding at `path`.
    pub fn build(path: String, shape: [usize; 2], source: &mut Source<'_>) -> Result<Embedding> {
        let weight = source(&format!("{path}.weight"), &shape)?;
        Ok(Embedding { path, weight })
    }

    /// Ids [..] to [.., H].
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        ops::gather(&self.weight, ids)
    }

    pub(crate) fn parameters<'a>(&'a self, visit: &mut dyn FnMut(String, &'a Tensor)) {
        visit(format!("{}.weight", self.path), &self.weight);
    }
}

/// y = x W^T + b.
#[derive(Clone)]
pub struct Linear {
    /// The module's path, as in `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// [outputs, inputs].
    pub weight: Tensor,
    /// [outputs].
    pub bias: Option<Tensor>,
}

impl Linear {
    /// The layer at `path`, with a bias or without.
    pub fn build(path: String, [outputs, inputs]: [usize; 2], bias: bool, source: &mut Source<'_>) -> Result<Linear> {
        let weight = source(&format!("{path}.weight"), &[outputs, inputs])?;
        let bias = if bias { Some(source(&format!("{path}.bias"), &[outputs])?) } else { None };
        Ok(Linear { path, weight, bias })
    }

    /// [.., inputs] to [.., outputs].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::linear_with(x, &self.weight, &ops::Epilogue { bias: self.bias.as_ref(), ..Default::default() })
    }

    /// The same, with what a way of tuning makes of what goes in and comes out.
    pub fn tuned(&self, x: &Tensor, tuning: &dyn Tuning) -> Tensor {
        let entered = tuning.enter(self, x);
        let x = entered.as_ref().unwrap_or(x);
        let y = self.forward(x);
        tuning.leave(self, x, &y).unwrap_or(y)
    }

    pub(crate) fn parameters<'a>(&'a self, visit: &mut dyn FnMut(String, &'a Tensor)) {
        visit(format!("{}.weight", self.path), &self.weight);
        if let Some(bias) = &self.bias {
            visit(format!("{}.bias", self.path), bias);
        }
    }
}

/// How residual streams are normed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// By the root of the mean square.
    Rms,
    /// By mean and deviation, with a bias.
    Layer,
}

/// A norm of the last axis with a learned scale: by the root of the mean square (Zhang and Sennrich 2019, arXiv:1910.07467), or by
/// mean and deviation with a bias (Ba et al. 2016, arXiv:1607.06450).
#[derive(Clone)]
pub struct Norm {
    /// The module's path.
    pub path: String,
    /// [width].
    pub weight: Tensor,
    /// [width], of the second kind.
    pub bias: Option<Tensor>,
    epsilon: f32,
}

impl Norm {
    /// The norm at `path` over a last axis of `width`.
    pub fn build(path: String, kind: NormKind, width: usize, epsilon: f64, source: &mut Source<'_>) -> Result<Norm> {
        let weight = source(&format!("{path}.weight"), &[width])?;
        let bias = match kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(source(&format!("{path}.bias"), &[width])?),
        };
        Ok(Norm { path, weight, bias, epsilon: epsilon as f32 })
    }

    /// The normed x, of its shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.bias {
            None => ops::rms_norm(x, &self.weight, self.epsilon),
            Some(bias) => ops::layer_norm(x, &self.weight, bias, self.epsilon),
        }
    }

    /// The heads x [B, T, H, D], normed by the root of their mean square, then rotated by their positions: [`ops::rope`].
    pub fn forward_rotated(&self, x: &Tensor, cos: &Tensor, sin: &Tensor, positions: &Tensor) -> Tensor {
        ops::rms_norm_rope(x, &self.weight, self.epsilon, cos, sin, positions)
    }

    pub(crate) fn parameters<'a>(&'a self, visit: &mut dyn FnMut(String, &'a Tensor)) {
        visit(format!("{}.weight", self.path), &self.weight);
        if let Some(bias) = &self.bias {
            visit(format!("{}.bias", self.path), bias);
        }
    }
}

/// What a way of tuning does to a pass, at its points; `None` is nothing. The product with a layer's weight lies between two of them, so
/// that rows which are tuned in different ways share it. `()` is the bare model.
///
/// The first axis of what it is given is that of the rows.
pub trait Tuning: Send + Sync {
    /// The tokens' vectors [.., H] of ids [..], which the layer made x [.., H] of.
    fn embedding(&self, layer: &Embedding, ids: &Tensor, x: &Tensor) -> Option<Tensor> {
        let _ = (layer, ids, x);
        None
    }

    /// What a linear layer is given in the place of x [.., inputs].
    fn enter(&self, layer: &Linear, x: &Tensor) -> Option<Tensor> {
        let _ = (layer, x);
        None
    }

    /// What leaves a linear layer, which made y [.., outputs] of x [.., inputs].
    fn leave(&self, layer: &Linear, x: &Tensor, y: &Tensor) -> Option<Tensor> {
        let _ = (layer, x, y);
        None
    }

    /// What leaves `sublayer` (`self_attn` or `mlp`) of the block at `path`, which made y, before it joins the residual stream.
    fn sublayer(&self, path: &str, sublayer: &str, y: &Tensor) -> Option<Tensor> {
        let _ = (path, sublayer, y);
        None
    }

    /// Vectors [N, H] of tokens that are in no vocabulary. Their ids follow those of the vocabulary.
    fn virtual_tokens(&self) -> Option<Tensor> {
        None
    }

    /// How many of them are before those of this row, whose ids follow those of the vocabulary too.
    fn virtual_tokens_before(&self, row: usize) -> usize {
        let _ = row;
        0
    }

    /// How many keys stand before those of this row's text, whose positions go on behind them.
    fn prefix_length(&self, row: usize) -> usize {
        let _ = row;
        0
    }

    /// These keys and values of a layer, both [N, KV, D], for so many rows, and then for so many others, up to the last of `rows`.
    fn prefixes(&self, layer: usize, rows: usize) -> Vec<(usize, Option<[Tensor; 2]>)> {
        let _ = layer;
        vec![(rows, None)]
    }
}

impl Tuning for () {}

/// Some of the rows of x, which lie along its first axis.
pub(crate) fn rows_of(x: &Tensor, rows: &Range<usize>) -> Tensor {
    if rows.len() == x.size(0) { x.clone() } else { x.slice(0, rows.clone()) }
}

/// All rows, of parts that have some each.
pub(crate) fn joined(parts: Vec<Tensor>) -> Tensor {
    match &parts[..] {
        [all] => all.clone(),
        parts => ops::cat(&parts.iter().collect::<Vec<_>>(), 0),
    }
}
