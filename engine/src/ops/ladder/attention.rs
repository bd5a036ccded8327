//! The attention ladder.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::dtype::DType;
use crate::kernel::{Access, Constants, Cost, Io, Kernel, Shader, Traits};
use crate::ops::{self, Mask};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

/// Causal attention of `query`, `key` and `value` [B, T, H, D] with scores q_t k_s / sqrt(D), D a multiple of 4 and at most 128:
/// [`attention`](crate::ops::attention) for those who read the ladder. It takes memory for all scores, [B, H, T, T], which the
/// first rung uses. No gradient flows.
#[track_caller]
pub fn ladder_attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
    let inputs = [query, key, value];
    let shapes = inputs.map(Tensor::shape);
    let [q, k, v] = shapes;
    let fits = q.len() == 4 && q == k && q == v && q[3].is_multiple_of(4) && q[3] <= 128 && q.elements() > 0;
    assert!(fits, "[ladder_attention] expected three of one shape [B, T, H, D] with D of 4, 8, .. 128, got {shapes:?}");
    let detached = inputs.iter().all(|input| !input.requires_grad());
    assert!(detached, "[ladder_attention] expected detached tensors, got ones that want a gradient");
    let [batch, positions, heads, head_dim] = [q[0], q[1], q[2], q[3]];
    let params = Params {
        batch: batch as u32,
        positions: positions as u32,
        heads: heads as u32,
        head_dim: head_dim as u32,
        scale: 1.0 / (head_dim as f32).sqrt(),
    };
    let output = query.device().empty(q, DType::F32);
    let scores = query.device().empty([batch, heads, positions, positions], DType::F32);
    let [query, key, value] = inputs.map(Tensor::whole);
    dispatch::<LadderAttention>(params, &[&query, &key, &value, &output, &scores]);
    output
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    batch: u32,
    positions: u32,
    heads: u32,
    head_dim: u32,
    scale: f32,
}

pub(super) struct LadderAttention;

impl Kernel for LadderAttention {
    type Params = Params;
    const NAME: &'static str = "ladder_attention";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        rung::<64>("ladder/attention_1").allowed(a_query_fits),
        rung::<64>("ladder/attention_2").allowed(a_query_fits),
        rung::<64>("ladder/attention_3").allowed(a_query_fits),
        rung::<64>("ladder/attention_4").with(head_dim).allowed(a_query_fits),
        rung::<64>("ladder/attention_5").with(head_dim).allowed(a_query_fits),
        rung::<32>("ladder/attention_6"),
        rung::<64>("ladder/attention_7").preferred(|_, _| true),
        rung::<32>("ladder/attention_8")
            .allowed(|_, traits| traits.subgroups.is_some_and(|(least, most)| least >= 4 && most <= 32)),
    ];
    /// Each rung is read and timed as it stands.
    fn grouped_by(_: &Params) -> Option<u32> {
        None
    }
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        [p.batch, p.heads, p.positions, p.head_dim]
    }
    fn cost(p: &Params) -> Cost {
        let [rows, positions, dim] = [p.batch * p.heads, p.positions, p.head_dim].map(u64::from);
        Cost { flops: 2 * rows * positions * (positions + 1) * dim, bytes: 16 * rows * positions * dim }
    }
    /// The definition: the twin of every rung.
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (query, key, value, output, scores) = (io.real(0), io.real(1), io.real(2), io.real_mut(3), io.real_mut(4));
        let [heads, positions, dim] = [p.heads, p.positions, p.head_dim].map(|size| size as usize);
        // Of a tensor [B, T, H, D]: the row of a position in a row's batch and head.
        let row_of = |row: usize, position: usize| (row / heads / positions * positions + position) * heads + row % heads;
        let scores = scores.par_chunks_mut(positions);
        output.par_chunks_mut(dim).zip(scores).enumerate().for_each(|(row, (output, scores))| {
            let mine = &query[row * dim..][..dim];
            let position = row / heads % positions;
            let scores = &mut scores[..=position];
            for (s, score) in scores.iter_mut().enumerate() {
                let key = &key[row_of(row, s) * dim..][..dim];
                *score = mine.iter().zip(key).fold(R::ZERO, |sum, (&q, &k)| sum + q * k) * R::from_f32(p.scale);
            }
            let most = scores.iter().fold(scores[0], |most, &score| most.max(score));
            scores.iter_mut().for_each(|score| *score = (*score - most).exp());
            let sum = scores.iter().fold(R::ZERO, |sum, &weight| sum + weight);
            for (d, output) in output.iter_mut().enumerate() {
                let terms = scores.iter().enumerate().map(|(s, &weight)| weight * value[row_of(row, s) * dim + d]);
                *output = terms.fold(R::ZERO, |sum, term| sum + term) / sum;
            }
        });
    }
}

/// D, known when the pipeline is made.
fn head_dim(p: &Params) -> Constants {
    vec![("HEAD_DIM", p.head_dim.into())]
}

/// A rung, whose workgroups have so many queries each: it runs where it is forced.
const fn rung<const QUERIES: u32>(source: &'static str) -> Shader<Params> {
    Shader::new(source, |p: &Params| [p.positions.div_ceil(QUERIES), p.heads, p.batch]).preferred(|_, _| false)
}

/// What an invocation of the first rungs goes through for each key: D in vectors of four twice, and what it sets up.
fn a_query_fits(p: &Params, traits: &Traits) -> bool {
    traits.iterations_fit(u64::from(p.positions + 64) * u64::from(p.head_dim / 2 + 4))
}

pub(super) fn cases() -> Vec<Case> {
    // Within and past every tile, an odd number for the pairs of rung 7, and the largest D.
    let sizes = [[1, 1, 1, 4], [2, 17, 3, 20], [1, 63, 2, 64], [1, 65, 1, 128], [2, 129, 2, 32]];
    sizes.map(case).into()
}

fn case(shape: [usize; 4]) -> Case {
    let run = |x: &[Tensor]| vec![ladder_attention(&x[0].detach(), &x[1].detach(), &x[2].detach())];
    let causal = Mask { causal: true, ..Mask::default() };
    let in_use = move |x: &[Tensor]| vec![ops::attention(&x[0].detach(), &x[1].detach(), &x[2].detach(), &causal)];
    let [_, positions, _, dim] = shape;
    let name = format!("ladder attention {shape:?}");
    Case::new(name, [shape; 3].map(Input::any), run).terms(positions + dim).composed(in_use)
}
