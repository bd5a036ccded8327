//! The backward kernels: one loops over keys, one over queries, so that each result is summed by one task in a fixed order.

use rayon::prelude::*;

use super::block::{self, KEYS, Part, Queries};
use super::params::{Inputs, Params, Pass, variants};
use crate::buffer::BufferRef;
use crate::kernel::{Access, Cost, Io, Kernel, Shader};
use crate::real::{Real, Threads};

/// Keys whose gradients one task sums.
const KEYS_A_TASK: usize = 64;

/// Seven inputs, one output: as many as every device binds.
const ACCESS: &[Access] = &{
    let mut access = [Access::Read; 8];
    access[7] = Access::Write;
    access
};

/// Query, key, value, lengths, segments, gradient of the output, [`statistics`](super::statistics) -> gradient of the query
/// [B, T, H, D].
pub(super) struct QueryGrad;

impl Pass for QueryGrad {}

impl Kernel for QueryGrad {
    type Params = Params;
    const NAME: &'static str = "attention_query_grad";
    const ACCESS: &'static [Access] = ACCESS;
    const SHADERS: &'static [Shader<Params>] = &variants::<QueryGrad>([
        "attention_query_grad_row",
        "attention_query_grad_tile",
        "attention_query_grad_subgroup",
        "attention_query_grad_matrix_16",
        "attention_query_grad_matrix_8",
        "attention_query_grad_matrix_emulated",
    ]);
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.bucket()
    }
    /// Of the five products of a backward pass (Dao 2023, "FlashAttention-2", arXiv:2307.08691): its own, and half of the two that
    /// both kernels compute.
    fn grouped_by(p: &Params) -> Option<u32> {
        Some(p.head_dim)
    }
    fn cost(p: &Params) -> Cost {
        let [query, key] = p.elements();
        p.cost(2, 4 * query + 2 * key)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let inputs = Inputs::new(p, io);
        let (grad, statistics, query_grad) = (io.real(5), io.real(6), io.real_mut(7));
        if query_grad.is_empty() {
            return;
        }
        let (block, group, dim) = (block::positions(p), p.group(), p.head_dim as usize);
        block::parts(p, query_grad, p.queries, group * dim, block).into_par_iter().for_each(|query_grad| {
            let Part { batch, head, positions, out } = query_grad;
            let queries = Queries::new(&inputs, batch, head, positions);
            let [log_sums, dots] = columns(&queries.rows(statistics, 2));
            let sum = query_sum(&queries, &log_sums, &queries.rows(grad, dim), &dots);
            let scale = R::from_f32(p.scale);
            for (out, sum) in out.into_iter().zip(sum.chunks_exact(group * dim)) {
                out.iter_mut().zip(sum).for_each(|(out, &sum)| *out = sum * scale);
            }
        });
    }
}

/// Log sums and dot products of rows of both.
fn columns<R: Real>(statistics: &[R]) -> [Vec<R>; 2] {
    [0, 1].map(|column| statistics.iter().skip(column).step_by(2).copied().collect())
}

/// sum_s z_ts k_s of a block of queries.
fn query_sum<R: Real>(queries: &Queries<'_, '_, R>, log_sums: &[R], grad: &[R], dots: &[R]) -> Vec<R> {
    let rows = queries.count();
    let mut sum = vec![R::ZERO; grad.len()];
    let (mut weights, mut score_grads) = (vec![R::ZERO; rows * KEYS], vec![R::ZERO; rows * KEYS]);
    for keys in block::split(queries.reach(), KEYS) {
        let (p, z) = (&mut weights[..rows * keys.len()], &mut score_grads[..rows * keys.len()]);
        queries.weights(log_sums, &keys, p);
        queries.score_grads(grad, dots, &keys, p, z);
        queries.add_keys(z, &keys, &mut sum);
    }
    sum
}

/// Query, key, value, lengths, segments, gradient of the output, statistics -> gradients of the key and of the value,
/// [B, S, KV, D] each, the latter from the next multiple of [`BufferRef::PART`] on.
pub(super) struct KeyValueGrad;

impl Pass for KeyValueGrad {
    fn columns(p: &Params) -> u32 {
        p.rows()
    }
    fn pairs(p: &Params) -> [u32; 3] {
        p.pairs(p.keys, p.key_heads)
    }
    fn tiles(p: &Params) -> [u32; 3] {
        p.key_tiles()
    }
    fn blocks(p: &Params) -> [u32; 3] {
        p.blocks(p.keys)
    }
}

impl Kernel for KeyValueGrad {
    type Params = Params;
    const NAME: &'static str = "attention_key_value_grad";
    const ACCESS: &'static [Access] = ACCESS;
    const SHADERS: &'static [Shader<Params>] = &variants::<KeyValueGrad>([
        "attention_key_value_grad_row",
        "attention_key_value_grad_tile",
        "attention_key_value_grad_subgroup",
        "attention_key_value_grad_matrix_16",
        "attention_key_value_grad_matrix_8",
        "attention_key_value_grad_matrix_emulated",
    ]);
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.bucket()
    }
    /// Of the five products of a backward pass: its own two, and half of those that both kernels compute.
    fn grouped_by(p: &Params) -> Option<u32> {
        Some(p.head_dim)
    }
    fn cost(p: &Params) -> Cost {
        let [query, key] = p.elements();
        p.cost(3, 2 * query + 4 * key)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let inputs = Inputs::new(p, io);
        let (grad, statistics, gradients, dim) = (io.real(5), io.real(6), io.real_mut(7), p.head_dim as usize);
        let elements = p.batch as usize * p.keys as usize * p.key_heads as usize * dim;
        if elements == 0 {
            return;
        }
        let (key_grad, value_grad) = gradients.split_at_mut(elements.next_multiple_of(BufferRef::PART));
        let key_grad = &mut key_grad[..elements];
        let [key_grad, value_grad] = [key_grad, value_grad].map(|out| block::parts(p, out, p.keys, dim, KEYS_A_TASK));
        key_grad.into_par_iter().zip(value_grad).for_each(|(key_grad, value_grad)| {
            let Part { batch, head, positions: keys, out } = key_grad;
            let mut sums = KeyValueSums { key: vec![R::ZERO; keys.len() * dim], value: vec![R::ZERO; keys.len() * dim] };
            for positions in block::split(0..p.queries as usize, block::positions(p)) {
                let reach = inputs.reach(batch, positions.clone());
                let seen = reach.start.max(keys.start)..reach.end.min(keys.end);
                if !seen.is_empty() {
                    let queries = Queries::new(&inputs, batch, head, positions);
                    let [log_sums, dots] = columns(&queries.rows(statistics, 2));
                    sums.add(&queries, &queries.rows(grad, dim), &log_sums, &dots, seen, keys.start);
                }
            }
            let sums = sums.key.chunks_exact(dim).zip(sums.value.chunks_exact(dim));
            for ((key_grad, value_grad), (key, value)) in out.into_iter().zip(value_grad.out).zip(sums) {
                key_grad.copy_from_slice(key);
                value_grad.copy_from_slice(value);
            }
        });
    }
}

/// sum_t z_ts q_t and sum_t p_ts g_t of a block of keys.
struct KeyValueSums<R> {
    key: Vec<R>,
    value: Vec<R>,
}

impl<R: Real> KeyValueSums<R> {
    /// Adds a block of queries; of the block of keys, which starts at `first`, they see `keys`.
    fn add(
        &mut self,
        queries: &Queries<'_, '_, R>,
        grad: &[R],
        log_sums: &[R],
        dots: &[R],
        keys: std::ops::Range<usize>,
        first: usize,
    ) {
        let (rows, width) = (queries.count(), keys.len());
        let dim = grad.len() / rows;
        let (mut p, mut z) = (vec![R::ZERO; rows * width], vec![R::ZERO; rows * width]);
        queries.weights(log_sums, &keys, &mut p);
        queries.score_grads(grad, dots, &keys, &p, &mut z);
        let from = (keys.start - first) * dim;
        for (sum, weights, x) in [(&mut self.key, &z, &queries.scaled[..]), (&mut self.value, &p, grad)] {
            let sum = (&mut sum[from..], [dim, 1]);
            R::gemm([width, dim, rows], [R::ONE; 2], sum, (weights, [1, width]), (x, [dim, 1]), Threads::One);
        }
    }
}
