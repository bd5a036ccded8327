//! The small GPT that every engine trains: its shape, first weights, tokens and optimiser. A decoder of the Llama family: RMS
//! norms, rotary positions, causal attention, SwiGLU, and an output projection of its own.

use wgtune_engine::random::Philox;
use wgtune_models::hash::fnv1a;

pub const LAYERS: usize = 4;
pub const WIDTH: usize = 256;
/// The feed-forward layer's inside.
pub const INSIDE: usize = 688;
pub const HEADS: usize = 4;
pub const HEAD_DIM: usize = WIDTH / HEADS;
pub const VOCABULARY: usize = 4096;
pub const BATCH: usize = 4;
pub const POSITIONS: usize = 128;
/// Of the rotary positions.
pub const BASE: f32 = 10_000.0;

pub const LEARNING_RATE: f64 = 1e-4;
pub const WEIGHT_DECAY: f64 = 0.01;
pub const BETAS: [f64; 2] = [0.9, 0.999];
pub const ADAM_EPSILON: f64 = 1e-8;

/// The first value of a parameter: ones for a norm, else normal with standard deviation 0.02, whatever engine asks.
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product::<usize>();
    if shape.len() == 1 {
        return vec![1.0; count];
    }
    let random = Philox::new(fnv1a(name.bytes()));
    (0..count as u64).map(|i| 0.02 * random.normal(i)).collect()
}

/// The tokens [B, T], and the target of each: the token after it.
pub fn tokens() -> [Vec<u32>; 2] {
    let random = Philox::new(7);
    let token = |row: usize, at: usize| random.below((row * (POSITIONS + 1) + at) as u64, VOCABULARY) as u32;
    [0, 1].map(|shift| {
        (0..BATCH).flat_map(|row| (0..POSITIONS).map(move |at| (row, at + shift))).map(|(row, at)| token(row, at)).collect()
    })
}

/// Cosine and sine [T, D] of rotary positions, for engines that rotate by x cos + rotate_half(x) sin: the angle of dimensions d
/// and d + D/2 at position t is t base^(-2d/D).
pub fn rotations() -> [Vec<f32>; 2] {
    let angle = |at: usize| {
        let (position, d) = (at / HEAD_DIM, at % (HEAD_DIM / 2));
        position as f32 * BASE.powf(-2.0 * d as f32 / HEAD_DIM as f32)
    };
    let all = 0..POSITIONS * HEAD_DIM;
    [all.clone().map(|at| angle(at).cos()).collect(), all.map(|at| angle(at).sin()).collect()]
}
