//! What is computed, and how an engine is asked to.

use std::error::Error;

use wgtune_engine::random::Philox;

/// One thing to compute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// [n, n] times [n, n].
    Matmul(usize),
    /// Over the last axis of [4096, 1024].
    Softmax,
    /// Over the last axis of [4096, 1024], with weight and bias.
    LayerNorm,
    /// The exact one, by the error function, of [4096, 1024].
    Gelu,
    /// [4096, 1024] and [4096, 1024].
    Add,
    /// Causal, of query, key and value [B, T, H, D] as [`ATTENTION`] says.
    Attention,
    /// The same, and the gradients of all three.
    AttentionBackward,
    /// A full fine-tuning step of a small GPT (`gpt.rs`): loss, gradients, AdamW.
    GptStep,
}

/// Batch, positions, heads and head dimension of attention.
pub const ATTENTION: [usize; 4] = [4, 128, 4, 64];

/// What makes a norm's division safe, the same for everybody.
pub const EPSILON: f64 = 1e-5;

/// An engine, on one device.
pub trait Engine {
    /// As in `burn GPU`.
    fn name(&self) -> &str;
    /// The work made ready: inputs in place, and parameters.
    fn job(&self, work: Work) -> Result<Job, Box<dyn Error>>;
}

/// Computes once.
pub type Job = Box<dyn FnMut(Then) -> Result<Vec<f32>, Box<dyn Error>>>;

/// What to do with the results.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Wait until they are all there, on the device. Nothing is returned.
    Wait,
    /// Read them, in the order and layout that `Work` says.
    Read,
}

/// An input's shape and numbers, row-major.
pub struct Input {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Work {
    pub const ALL: [Work; 9] = [
        Work::Matmul(512),
        Work::Matmul(1024),
        Work::Softmax,
        Work::LayerNorm,
        Work::Gelu,
        Work::Add,
        Work::Attention,
        Work::AttentionBackward,
        Work::GptStep,
    ];

    pub fn name(self) -> String {
        match self {
            Work::Matmul(size) => format!("matmul {size}^3"),
            Work::Softmax => "softmax [4096, 1024]".into(),
            Work::LayerNorm => "layer norm [4096, 1024]".into(),
            Work::Gelu => "gelu [4096, 1024]".into(),
            Work::Add => "add [4096, 1024]".into(),
            Work::Attention => "attention b4 h4 t128 d64 causal, forward".into(),
            Work::AttentionBackward => "attention b4 h4 t128 d64 causal, forward + backward".into(),
            Work::GptStep => "GPT step, 4 layers, width 256, vocabulary 4096, 4 x 128, AdamW".into(),
        }
    }

    /// Floating-point operations, where the work is bound by them.
    pub fn flops(self) -> Option<f64> {
        match self {
            Work::Matmul(size) => Some(2.0 * (size as f64).powi(3)),
            _ => None,
        }
    }

    /// Its inputs; of attention's backward pass the last is the weight of each output in the sum that is differentiated.
    pub fn inputs(self) -> Vec<Input> {
        let rows = || vec![4096, 1024];
        let shapes = match self {
            Work::Matmul(size) => vec![vec![size, size]; 2],
            Work::Softmax | Work::Gelu => vec![rows()],
            Work::LayerNorm => vec![rows(), vec![1024], vec![1024]],
            Work::Add => vec![rows(); 2],
            Work::Attention => vec![ATTENTION.to_vec(); 3],
            Work::AttentionBackward => vec![ATTENTION.to_vec(); 4],
            Work::GptStep => vec![],
        };
        shapes.into_iter().zip(0..).map(|(shape, key)| Input::normal(shape, key)).collect()
    }
}

impl Input {
    /// Standard normal numbers.
    pub fn normal(shape: Vec<usize>, key: u64) -> Input {
        let random = Philox::new(key);
        let values = (0..shape.iter().product::<usize>() as u64).map(|i| random.normal(i)).collect();
        Input { shape, values }
    }

    /// [B, T, H, D] as [B, H, T, D], or back: the other engines keep heads before positions.
    pub fn heads_first(&self) -> Input {
        let [batch, positions, heads, dim] = [0, 1, 2, 3].map(|axis| self.shape[axis]);
        let mut values = Vec::with_capacity(self.values.len());
        for b in 0..batch {
            for h in 0..heads {
                for t in 0..positions {
                    values.extend_from_slice(&self.values[((b * positions + t) * heads + h) * dim..][..dim]);
                }
            }
        }
        Input { shape: vec![batch, heads, positions, dim], values }
    }
}

/// Results of attention [B, H, T, D], one after the other, as [B, T, H, D].
pub fn positions_first(results: Vec<f32>) -> Vec<f32> {
    let [batch, positions, heads, dim] = ATTENTION;
    let shape = vec![batch, heads, positions, dim];
    let one = batch * positions * heads * dim;
    results.chunks(one).flat_map(|values| Input { shape: shape.clone(), values: values.to_vec() }.heads_first().values).collect()
}
