//! The backward kernels: one loops over keys, one over queries, so that each result is summed by one task in a fixed order.

use rayon::prelude::*;

use super::block::{self, KEYS, Part, Queries};
use super::params::{Inputs, Params, Pass, variants};
use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::kernel::{Access, Cost, Io, Kernel, Lowering, Shader, Traits};
use crate::ops::matmul;
use crate::real::{Real, Threads};
use crate::tensor::{Tensor, dispatch};

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
/// [B, S, KV, D] each, the latter from the next multiple of [`BufferRef::PART`] on. Each may be in parts, [B, parts, S, KV, D], of
/// which each sums over so many of the queries.
pub(super) struct KeyValueGrad;

impl Pass for KeyValueGrad {
    fn columns(p: &Params) -> u32 {
        // Tiles begin anew with each head of a group.
        p.group() as u32 * p.queries.next_multiple_of(QUERIES)
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
    /// Few keys of few heads are too few tiles for a GPU: their queries are taken in parts.
    fn lower(p: &Params, buffers: &[BufferRef], into: &mut Lowering) {
        let parts = parts(p, into.traits);
        if parts == 1 {
            return;
        }
        let (inputs, both, sums) = (&buffers[..7], buffers[7], Sums::new(p, parts));
        let of_parts = into.buffer(DType::F32, sums.all(sums.of_parts));
        into.dispatch::<KeyValueGrad>(p.in_parts(parts), &[inputs, &[of_parts]].concat());
        for [from, to] in sums.starts() {
            let (from, to) = (of_parts.part(from, sums.of_parts), both.part(to, sums.whole));
            matmul::sum_lowered(parts, sums.together, from, to, into);
        }
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
        // Parts are of queries, and each query sees all of its keys.
        let (whole, parts) = (Params { batch: p.batch / p.parts, parts: 1, ..*p }, p.parts as usize);
        let inputs = Inputs::new(&whole, io);
        let (grad, statistics, gradients, dim) = (io.real(5), io.real(6), io.real_mut(7), p.head_dim as usize);
        let elements = p.batch as usize * p.keys as usize * p.key_heads as usize * dim;
        if elements == 0 {
            return;
        }
        let (key_grad, value_grad) = gradients.split_at_mut(values_start(elements));
        let key_grad = &mut key_grad[..elements];
        let [key_grad, value_grad] = [key_grad, value_grad].map(|out| block::parts(p, out, p.keys, dim, KEYS_A_TASK));
        key_grad.into_par_iter().zip(value_grad).for_each(|(key_grad, value_grad)| {
            let Part { batch, head, positions: keys, out } = key_grad;
            let (batch, part) = (batch / parts, batch % parts);
            let mut sums = KeyValueSums { key: vec![R::ZERO; keys.len() * dim], value: vec![R::ZERO; keys.len() * dim] };
            let queries = p.queries as usize;
            let [first, end] = [part, part + 1].map(|part| queries.min(part * queries.div_ceil(parts)));
            for positions in block::split(first..end, block::positions(p)) {
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

/// Workgroups that occupy a GPU: one for each multiprocessor of the larger.
const WORKGROUPS: u32 = 132;
/// Queries that a part has at least: the columns of a tile in f32.
const QUERIES: u32 = 64;

/// Into how many parts to take the queries.
fn parts(p: &Params, traits: &Traits) -> u32 {
    let workgroups: u32 = p.key_tiles().iter().product();
    match traits.software || workgroups == 0 || p.parts > 1 {
        true => 1,
        false => (WORKGROUPS / workgroups).min(p.queries / QUERIES).max(1),
    }
}

/// How gradients in parts lie: elements of those of all keys, in parts and summed, and of one batch row's.
struct Sums {
    of_parts: usize,
    whole: usize,
    together: u32,
}

impl Sums {
    fn new(p: &Params, parts: u32) -> Sums {
        let together = p.keys * p.key_heads * p.head_dim;
        let whole = p.batch as usize * together as usize;
        Sums { of_parts: parts as usize * whole, whole, together }
    }

    /// Elements of the gradients of keys and of as many of values.
    fn all(&self, of_keys: usize) -> usize {
        values_start(of_keys) + of_keys
    }

    /// Where those of the keys begin, in parts and summed, and those of the values.
    fn starts(&self) -> [[usize; 2]; 2] {
        [[0; 2], [self.of_parts, self.whole].map(values_start)]
    }
}

/// Where the gradients of values begin, behind so many of keys.
fn values_start(elements: usize) -> usize {
    elements.next_multiple_of(BufferRef::PART)
}

/// The gradients of keys and values of `inputs`, those of the kernel, summed over so many parts of the queries: both in one tensor,
/// and where the values' begin.
pub(super) fn key_value_grad(p: Params, inputs: &[&Tensor], parts: u32) -> (Tensor, usize) {
    let (device, sums) = (inputs[0].device(), Sums::new(&p, parts));
    let both = device.empty([sums.all(sums.whole)], DType::F32);
    if parts == 1 {
        dispatch::<KeyValueGrad>(p, &[inputs, &[&both]].concat());
    } else {
        let of_parts = device.empty([sums.all(sums.of_parts)], DType::F32);
        dispatch::<KeyValueGrad>(p.in_parts(parts), &[inputs, &[&of_parts]].concat());
        for [from, to] in sums.starts() {
            let (from, to) = (of_parts.cut(from, [sums.of_parts].into()), both.cut(to, [sums.whole].into()));
            matmul::sum_parts(parts, sums.together, &from, &to);
        }
    }
    (both, values_start(sums.whole))
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
