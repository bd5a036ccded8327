//! Parameter-efficient tuning: small additions to a frozen model, at four points.

mod lora;

pub use lora::Lora;

use wgtune_engine::Tensor;

/// What a tuning method may do to a pass, each point an identity unless it says otherwise. `()` is the bare model.
pub trait Tuning: Send + Sync {
    /// The embedded tokens [B, T, H] (prompt tuning, p-tuning).
    fn embeddings(&self, x: Tensor) -> Tensor {
        x
    }

    /// The output y of the linear layer at `path` for the input x (LoRA, IA3).
    fn linear(&self, path: &str, x: &Tensor, y: Tensor) -> Tensor {
        let _ = (path, x);
        y
    }

    /// The output of `sublayer` (`self_attn` or `mlp`) of the block at `path`, before it joins the residual stream (adapters).
    fn sublayer(&self, path: &str, sublayer: &str, y: Tensor) -> Tensor {
        let _ = (path, sublayer);
        y
    }

    /// A layer's keys and values [B, T, KV, D] (prefix tuning, IA3).
    fn key_value(&self, layer: usize, key: Tensor, value: Tensor) -> (Tensor, Tensor) {
        let _ = layer;
        (key, value)
    }
}

impl Tuning for () {}
