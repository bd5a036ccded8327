//! The forward kernel.

use std::ops::Range;

use rayon::prelude::*;

use super::block::{self, KEYS, Part, Queries};
use super::join;
use super::params::{Inputs, Params, Pass, variants};
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::kernel::{Access, Cost, Io, Kernel, Lowering, Shader};
use crate::real::Real;

/// Below every score, and finite: what WGSL lets a shader count on.
pub(super) const HIDDEN: f64 = -1e30;

/// Keys that one task goes through alone. A single query over a long cache is shared out in pieces of this many.
const PIECE: usize = 1024;

/// Query, key, value, lengths, segments or pages -> output [B, T, H, D] and log sum_s e^(q_t k_s scale) [B, T, H].
pub(super) struct Forward;

impl Pass for Forward {}

impl Kernel for Forward {
    type Params = Params;
    const NAME: &'static str = "attention";
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &variants::<Forward>([
        "attention_row",
        "attention_tile",
        "attention_subgroup",
        "attention_matrix_16",
        "attention_matrix_8",
        "attention_matrix_emulated",
    ]);
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.bucket()
    }
    /// Few queries over many keys go through them in parts.
    fn lower(p: &Params, buffers: &[BufferRef], into: &mut Lowering) {
        match join::parts(p, into.traits) {
            1 => {}
            parts => join::lowered(p, buffers, parts, into),
        }
    }
    fn grouped_by(p: &Params) -> Option<u32> {
        Some(p.head_dim)
    }
    fn cost(p: &Params) -> Cost {
        let [query, key] = p.elements();
        p.cost(2, 2 * (query + key))
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let inputs = Inputs::new(p, io);
        let (output, log_sums, group) = (io.real_mut(5), io.real_mut(6), p.group());
        if output.is_empty() {
            return;
        }
        let block = block::positions(p);
        let output = block::parts(p, output, p.queries, group * p.head_dim as usize, block);
        let log_sums = block::parts(p, log_sums, p.queries, group, block);
        output.into_par_iter().zip(log_sums).for_each(|(output, log_sums)| attend(&inputs, output, log_sums));
    }
}

fn attend<R: Real>(inputs: &Inputs<R>, output: Part<R>, log_sums: Part<R>) {
    let Part { batch, head, positions, out } = output;
    let queries = Queries::new(inputs, batch, head, positions);
    let pieces: Vec<Range<usize>> = block::split(queries.reach(), PIECE).collect();
    let pieces: Vec<Partial<R>> = pieces.into_par_iter().map(|keys| Partial::over(&queries, keys, inputs)).collect();
    let Some(whole) = pieces.into_iter().reduce(Partial::merge) else {
        out.into_iter().for_each(|row| row.fill(R::ZERO));
        return log_sums.out.into_iter().for_each(|row| row.fill(R::from_f64(HIDDEN)));
    };
    let dim = inputs.params.head_dim as usize;
    let mut row = 0;
    for (out, log_sums) in out.into_iter().zip(log_sums.out) {
        for (out, log_sum) in out.chunks_exact_mut(dim).zip(log_sums) {
            let (sum, values) = (whole.sums[row], &whole.values[row * dim..][..dim]);
            let scale = if sum == R::ZERO { R::ZERO } else { R::ONE / sum };
            out.iter_mut().zip(values).for_each(|(out, &value)| *out = value * scale);
            *log_sum = if sum == R::ZERO { R::from_f64(HIDDEN) } else { whole.most[row] + sum.ln() };
            row += 1;
        }
    }
}

/// A softmax-weighted sum over some of the keys, not yet divided: for every row the largest score m, sum_s e^(s - m), and
/// sum_s e^(s - m) v_s.
struct Partial<R> {
    most: Vec<R>,
    sums: Vec<R>,
    values: Vec<R>,
}

impl<R: Real> Partial<R> {
    fn over(queries: &Queries<'_, '_, R>, keys: Range<usize>, inputs: &Inputs<R>) -> Partial<R> {
        let (rows, dim) = (queries.count(), inputs.params.head_dim as usize);
        let mut all =
            Partial { most: vec![R::from_f64(HIDDEN); rows], sums: vec![R::ZERO; rows], values: vec![R::ZERO; rows * dim] };
        let mut scores = vec![R::ZERO; rows * KEYS.min(keys.len())];
        for keys in inputs.blocks(keys, KEYS) {
            let scores = &mut scores[..rows * keys.len()];
            queries.scores(&keys, scores);
            all.weigh(queries, &keys, scores);
            queries.add_values(scores, &keys, &mut all.values);
        }
        all
    }

    /// Turns a block of scores into weights e^(s - m), moving what was summed so far to the new m.
    fn weigh(&mut self, queries: &Queries<'_, '_, R>, keys: &Range<usize>, scores: &mut [R]) {
        let (hidden, dim) = (R::from_f64(HIDDEN), self.values.len() / self.most.len());
        parallel::vectorized(
            #[inline(always)]
            || {
                for (row, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
                    let seen = queries.seen(row, keys);
                    queries.hide_segments(row, keys, scores, hidden);
                    let (before, most) = (self.most[row], parallel::largest(&scores[seen.clone()], self.most[row]));
                    scores[..seen.start].fill(R::ZERO);
                    scores[seen.end..].fill(R::ZERO);
                    for score in &mut scores[seen] {
                        *score = (*score - most).exp();
                    }
                    queries.hide_segments(row, keys, scores, R::ZERO);
                    let kept = (before - most).exp();
                    self.most[row] = most;
                    self.sums[row] = self.sums[row] * kept + parallel::lane_sum(scores, |weight| weight);
                    if most > before {
                        for value in &mut self.values[row * dim..][..dim] {
                            *value *= kept;
                        }
                    }
                }
            },
        );
    }

    /// Over the keys of both.
    fn merge(mut self, other: Partial<R>) -> Partial<R> {
        let dim = self.values.len() / self.most.len();
        for row in 0..self.most.len() {
            let most = self.most[row].max(other.most[row]);
            let (mine, theirs) = ((self.most[row] - most).exp(), (other.most[row] - most).exp());
            self.sums[row] = self.sums[row] * mine + other.sums[row] * theirs;
            let values = self.values[row * dim..][..dim].iter_mut().zip(&other.values[row * dim..][..dim]);
            values.for_each(|(value, &other)| *value = *value * mine + other * theirs);
            self.most[row] = most;
        }
        self
    }
}
