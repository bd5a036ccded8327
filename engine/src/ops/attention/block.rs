//! What the CPU twins share: how work is cut up, and blocks of scores.
//!
//! A task has one batch row, one key head and a run of positions. The query heads of a key head's group are handled together:
//! row `r` of a block of queries is head `r % group` of position `r / group`.

use std::ops::Range;

use super::params::{Inputs, Params, Rows};
use crate::device::parallel;
use crate::real::{Real, Threads};

/// Rows of queries in a block.
const ROWS: usize = 64;
/// Keys in a block.
pub(super) const KEYS: usize = 128;

/// Positions of queries in a block.
pub(super) fn positions(params: &Params) -> usize {
    ROWS.div_ceil(params.group())
}

/// One task's share of an output.
pub(super) struct Part<'a, R> {
    pub batch: usize,
    pub head: usize,
    pub positions: Range<usize>,
    /// A slice a position.
    pub out: Vec<&'a mut [R]>,
}

/// Cuts an output [B, N, KV, width] into tasks of `block` positions.
pub(super) fn parts<'a, R>(params: &Params, out: &'a mut [R], count: u32, width: usize, block: usize) -> Vec<Part<'a, R>> {
    let (count, heads) = (count as usize, params.key_heads as usize);
    let mut parts = Vec::with_capacity(params.batch as usize * count.div_ceil(block) * heads);
    for batch in 0..params.batch as usize {
        for first in (0..count).step_by(block) {
            let positions = first..(first + block).min(count);
            parts.extend((0..heads).map(|head| Part {
                batch,
                head,
                positions: positions.clone(),
                out: Vec::with_capacity(block),
            }));
        }
    }
    let a_batch = count.div_ceil(block) * heads;
    for (at, row) in out.chunks_exact_mut(width).enumerate() {
        let (position, head) = (at / heads, at % heads);
        parts[position / count * a_batch + position % count / block * heads + head].out.push(row);
    }
    parts
}

/// A block of query rows.
pub(super) struct Queries<'a, 'b, R> {
    inputs: &'b Inputs<'a, R>,
    batch: usize,
    head: usize,
    positions: Range<usize>,
    /// The queries times the scale.
    pub scaled: Vec<R>,
    seen: Vec<Range<usize>>,
}

impl<'a, 'b, R: Real> Queries<'a, 'b, R> {
    pub fn new(inputs: &'b Inputs<'a, R>, batch: usize, head: usize, positions: Range<usize>) -> Self {
        let seen = positions.clone().map(|position| inputs.seen(batch, position)).collect();
        let mut queries = Queries { inputs, batch, head, positions, scaled: Vec::new(), seen };
        let scale = R::from_f32(inputs.params.scale);
        queries.scaled = queries.rows_at(inputs.query, &inputs.params.query, inputs.params.head_dim as usize);
        queries.scaled.iter_mut().for_each(|value| *value *= scale);
        queries
    }

    /// How many rows: positions times heads in a group.
    pub fn count(&self) -> usize {
        self.seen.len() * self.inputs.params.group()
    }

    /// The batch row of the inputs.
    fn row(&self) -> usize {
        self.batch / self.inputs.params.parts as usize
    }

    /// The keys that any of the rows may see.
    pub fn reach(&self) -> Range<usize> {
        self.inputs.reach(self.batch, self.positions.clone())
    }

    /// These rows of a tensor [B, T, H, width], one after the other.
    pub fn rows(&self, x: &[R], width: usize) -> Vec<R> {
        self.rows_at(x, &Rows::contiguous(self.inputs.params, width), width)
    }

    fn rows_at(&self, x: &[R], lie: &Rows, width: usize) -> Vec<R> {
        let group = self.inputs.params.group();
        let mut rows = Vec::with_capacity(self.count() * width);
        for position in self.positions.clone() {
            for head in self.head * group..(self.head + 1) * group {
                rows.extend_from_slice(&x[lie.at(self.row(), position, head)..][..width]);
            }
        }
        rows
    }

    /// Row `row`'s part of a block of keys: where what it may see starts and ends.
    #[inline(always)]
    pub fn seen(&self, row: usize, keys: &Range<usize>) -> Range<usize> {
        let seen = &self.seen[row / self.inputs.params.group()];
        let end = seen.end.clamp(keys.start, keys.end) - keys.start;
        (seen.start.clamp(keys.start, keys.end) - keys.start).min(end)..end
    }

    /// Puts `hidden` where a row's segment is not the key's.
    #[inline(always)]
    pub fn hide_segments(&self, row: usize, keys: &Range<usize>, values: &mut [R], hidden: R) {
        if let Some(segments) = self.inputs.segments(self.batch) {
            let own = segments[self.positions.start + row / self.inputs.params.group()];
            for (value, &segment) in values.iter_mut().zip(&segments[keys.clone()]) {
                *value = if segment == own { *value } else { hidden };
            }
        }
    }

    /// The scores [rows, keys]: scaled queries times the transpose of the block's keys.
    pub fn scores(&self, keys: &Range<usize>, scores: &mut [R]) {
        self.times_transposed(&self.scaled, self.inputs.key, &self.inputs.params.key, keys, scores);
    }

    /// p [rows, keys] = e^(score - log sum) where a key is seen and 0 elsewhere.
    pub fn weights(&self, log_sums: &[R], keys: &Range<usize>, p: &mut [R]) {
        self.scores(keys, p);
        parallel::vectorized(
            #[inline(always)]
            || {
                for (row, p) in p.chunks_exact_mut(keys.len()).enumerate() {
                    let (seen, log_sum) = (self.seen(row, keys), log_sums[row]);
                    p[..seen.start].fill(R::ZERO);
                    p[seen.end..].fill(R::ZERO);
                    for score in &mut p[seen] {
                        *score = (*score - log_sum).exp();
                    }
                    self.hide_segments(row, keys, p, R::ZERO);
                }
            },
        );
    }

    /// z [rows, keys] = p (grad times the transpose of the block's values - dot).
    pub fn score_grads(&self, grad: &[R], dots: &[R], keys: &Range<usize>, p: &[R], z: &mut [R]) {
        self.times_transposed(grad, self.inputs.value, &self.inputs.params.value, keys, z);
        parallel::vectorized(
            #[inline(always)]
            || {
                for ((z, p), &dot) in z.chunks_exact_mut(keys.len()).zip(p.chunks_exact(keys.len())).zip(dots) {
                    for (z, &p) in z.iter_mut().zip(p) {
                        *z = p * (*z - dot);
                    }
                }
            },
        );
    }

    /// sum [rows, D] += x [rows, keys] times the block's keys.
    pub fn add_keys(&self, x: &[R], keys: &Range<usize>, sum: &mut [R]) {
        self.add_rows(x, self.inputs.key, &self.inputs.params.key, keys, sum);
    }

    /// sum [rows, D] += x [rows, keys] times the block's values.
    pub fn add_values(&self, x: &[R], keys: &Range<usize>, sum: &mut [R]) {
        self.add_rows(x, self.inputs.value, &self.inputs.params.value, keys, sum);
    }

    /// Where a block of keys, or of their values, starts.
    fn start_of(&self, lie: &Rows, keys: &Range<usize>) -> usize {
        lie.at(self.row(), self.inputs.place(self.row(), keys.start), self.head)
    }

    fn times_transposed(&self, x: &[R], from: &[R], lie: &Rows, keys: &Range<usize>, out: &mut [R]) {
        let (dim, from) = (self.inputs.params.head_dim as usize, &from[self.start_of(lie, keys)..]);
        let size = [self.count(), keys.len(), dim];
        R::gemm(size, [R::ZERO, R::ONE], (out, [keys.len(), 1]), (x, [dim, 1]), (from, [1, lie.position as usize]), Threads::One);
    }

    fn add_rows(&self, x: &[R], from: &[R], lie: &Rows, keys: &Range<usize>, sum: &mut [R]) {
        let (dim, from) = (self.inputs.params.head_dim as usize, &from[self.start_of(lie, keys)..]);
        let size = [self.count(), dim, keys.len()];
        R::gemm(size, [R::ONE; 2], (sum, [dim, 1]), (x, [keys.len(), 1]), (from, [lie.position as usize, 1]), Threads::One);
    }
}

/// Consecutive ranges of at most `size`.
pub(super) fn split(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(size).map(move |first| first..(first + size).min(range.end))
}
