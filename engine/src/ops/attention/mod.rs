//! Scaled dot-product attention, blocked so that no more than a block of scores exists at a time: FlashAttention-2 (Dao 2023,
//! arXiv:2307.08691).

mod backward;
mod block;
mod cases;
mod forward;
mod join;
mod params;
mod statistics;

use super::{Op, Pages, div, full, matmul, maximum, mul, scale};
use crate::dtype::DType;
use crate::kernel::AnyKernel;
use crate::tensor::{Tensor, dispatch};
use backward::{KeyValueGrad, QueryGrad, key_value_grad};
use forward::Forward;
use join::Join;
use params::Params;
use statistics::{Statistics, statistics};

pub(crate) const OP: Op = Op {
    name: "attention",
    kernels: &[
        AnyKernel::of::<Forward>(),
        AnyKernel::of::<Join>(),
        AnyKernel::of::<Statistics>(),
        AnyKernel::of::<QueryGrad>(),
        AnyKernel::of::<KeyValueGrad>(),
    ],
    cases: cases::cases,
};

/// Which keys a query sees. Query t stands at position `start + t` among the keys. A key that any part hides is hidden; a query
/// that sees no key gets zeros. The default hides nothing.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// Only keys at or before the query's own position. Keys past the last query, as in a cache that is not full, are hidden.
    pub causal: bool,
    /// The position of query 0: how many keys a cache held before.
    pub start: usize,
    /// Though causal, these many first keys are seen by all queries: a prefix that is read both ways (Raffel et al. 2020,
    /// arXiv:1910.10683).
    pub prefix: usize,
    /// Only keys less than this many positions before the query (and those after it, unless causal).
    pub window: Option<usize>,
    /// u32 [B]: in each row of the batch only this many first keys.
    pub lengths: Option<Tensor>,
    /// u32 [B, T], with as many keys as queries: only keys of the query's own segment, for sequences packed into one row.
    pub segments: Option<Tensor>,
}

/// Attention of `query` [B, T, H, D] over `key` and `value` [B, S, KV, D], where H is a multiple of KV and consecutive query heads
/// share a key head; D is at most 256. Gives [B, T, H, D]:
///
/// o_t = sum_s p_ts v_s with p_t = softmax_s(q_t k_s / sqrt(D)) over the keys s that `mask` shows to t.
///
/// Any of the three may be a strided view: slices of one fused projection are read where they lie.
///
/// Derivatives, for the gradient g: with D_t = g_t o_t and z_ts = p_ts (g_t v_s - D_t),
/// dq_t = sum_s z_ts k_s / sqrt(D), dk_s = sum_t z_ts q_t / sqrt(D), dv_s = sum_t p_ts g_t.
#[track_caller]
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, mask: &Mask) -> Tensor {
    attention_scaled(query, key, value, mask, 1.0 / (query.last_size() as f32).sqrt())
}

/// [`attention`] with another factor on the scores than 1/sqrt(D).
#[track_caller]
pub fn attention_scaled(query: &Tensor, key: &Tensor, value: &Tensor, mask: &Mask, scale: f32) -> Tensor {
    check(query, key, value, mask);
    attention_in_parts(query, key, value, mask, scale, [1; 2])
}

/// [`attention_scaled`] over so many parts of the keys, which are then joined, one part where there are segments; and the gradients of keys
/// and values over so many parts of the queries.
pub(crate) fn attention_in_parts(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    mask: &Mask,
    scale: f32,
    parts: [u32; 2],
) -> Tensor {
    let [q, k, v] = [query, key, value].map(dense_rows);
    // A part that the mask lacks is bound to the query, and never read.
    let [lengths, segments] =
        [&mask.lengths, &mask.segments].map(|part| part.as_ref().map_or(q.clone(), |part| part.detach().whole()));
    let forward = |params: Params| {
        let rows = [params.batch as usize, q.size(1), q.size(2)];
        let output = q.device().empty([rows[0], rows[1], rows[2], q.size(3)], DType::F32);
        let log_sums = q.device().empty(rows, DType::F32);
        dispatch::<Forward>(params, &[&q, &k, &v, &lengths, &segments, &output, &log_sums]);
        (output, log_sums)
    };
    let params = Params::new(&q, &k, &v, mask, scale);
    let (output, log_sums) = match parts[0] {
        1 => forward(params),
        parts => {
            let in_parts = params.in_parts(parts);
            let (outputs, part_log_sums) = forward(in_parts);
            let output = q.device().empty(q.shape(), DType::F32);
            let log_sums = q.device().empty([q.size(0), q.size(1), q.size(2)], DType::F32);
            dispatch::<Join>(join::Params::new(&in_parts), &[&outputs, &part_log_sums, &output, &log_sums]);
            (output, log_sums)
        }
    };
    let saved = output.clone();
    output.with_rule("attention", [query, key, value], move |grad, needs| {
        let (grad, device) = (grad.whole(), grad.device());
        let unit = device.traits().is_some_and(|traits| params.suits_halves(traits)).then(|| unit(&grad));
        let grad = unit.as_ref().map_or_else(|| grad.clone(), |unit| div(&grad, unit));
        let in_units = |x: Tensor| match &unit {
            Some(unit) => mul(&x, unit),
            None => x,
        };
        let statistics = statistics(&log_sums, &saved, &grad);
        let inputs = [&q, &k, &v, &lengths, &segments, &grad, &statistics];
        let dq = needs[0].then(|| {
            let dq = device.empty(q.shape(), DType::F32);
            dispatch::<QueryGrad>(params, &[&inputs[..], &[&dq]].concat());
            in_units(dq)
        });
        let [dk, dv] = match needs[1] || needs[2] {
            false => [None, None],
            true => {
                let (both, values) = key_value_grad(params, &inputs, parts[1]);
                [(needs[1], 0, k.shape()), (needs[2], values, v.shape())]
                    .map(|(is_wanted, start, shape)| is_wanted.then(|| in_units(both.cut(start, shape))))
            }
        };
        [dq, dk, dv]
    })
}

/// Causal attention of `query` [B, T, H, D], the last T tokens of B rows, over the keys and values of all tokens of their rows, which
/// lie in `pages` of two pools [P, S, KV, D]. Gives [B, T, H, D]: what [`attention`] gives for each row alone. Of a row with fewer
/// than T tokens the first queries stand before it, and get zeros. `window` is [`Mask::window`].
///
/// There is no gradient, so none of the three may require one.
#[track_caller]
pub fn paged_attention(query: &Tensor, keys: &Tensor, values: &Tensor, pages: &Pages, window: Option<usize>) -> Tensor {
    let [q, k, v] = [query.shape(), keys.shape(), values.shape()];
    let fits = q.len() == 4 && k.len() == 4 && k == v && k[1] > 0 && q[3] == k[3] && (1..=256).contains(&q[3]);
    let groups = fits && k[2] > 0 && q[2].is_multiple_of(k[2]);
    let inputs = [query, keys, values];
    let frozen = inputs.iter().all(|input| input.dtype() == DType::F32 && !input.requires_grad());
    assert!(
        groups && frozen,
        "[paged_attention] expected f32 off the tape, query [B, T, H, D], keys and values [P, S, KV, D] with D of 1 to 256 and H in \
         groups of KV, got {inputs:?}"
    );
    pages.check("paged_attention", q[0]);
    let q = dense_rows(query);
    let mask = Mask { causal: true, window, ..Mask::default() };
    let params = Params::new(&q, keys, values, &mask, 1.0 / (q.size(3) as f32).sqrt()).in_pages(pages);
    let output = q.device().empty(q.shape(), DType::F32);
    let log_sums = q.device().empty([q.size(0), q.size(1), q.size(2)], DType::F32);
    let [keys, values, lengths, table] = [keys, values, &pages.lengths, &pages.table].map(Tensor::whole);
    dispatch::<Forward>(params, &[&q, &keys, &values, &lengths, &table, &output, &log_sums]);
    output
}

/// [1]: what to divide the output's gradient by for products of f16, and to multiply those of the inputs by, which are linear in it.
///
/// It makes the largest magnitude 2^6, and f16 goes from 2^-24 to 2^16. The 2^10 above are for the gradients of scores,
/// p_ts (g_t v_s - D_t), which sum D terms; the 2^30 below for the weights p_ts of long rows. What rounding a quotient adds is
/// nothing to what rounding it to f16 does. A gradient of zeros stays that.
fn unit(grad: &Tensor) -> Tensor {
    maximum(&scale(&matmul::peak(grad), 1.0 / 64.0), &full(grad.device(), 1e-37, [1]))
}

#[track_caller]
fn check(query: &Tensor, key: &Tensor, value: &Tensor, mask: &Mask) {
    let inputs = [query, key, value];
    let shapes = inputs.map(Tensor::shape);
    let [q, k, v] = shapes;
    let f32s = inputs.iter().all(|input| input.dtype() == DType::F32);
    assert!(
        f32s && q.len() == 4 && k.len() == 4 && k == v && q[0] == k[0] && q[3] == k[3] && (1..=256).contains(&q[3]),
        "[attention] expected f32 query [B, T, H, D], key and value [B, S, KV, D] with D of 1 to 256, got {inputs:?}"
    );
    assert!(
        k[2] > 0 && q[2].is_multiple_of(k[2]),
        "[attention] expected query heads in groups of the key heads, got {q:?} and {k:?}"
    );
    if let Some(lengths) = &mask.lengths {
        let fits = lengths.dtype() == DType::U32 && *lengths.shape() == [q[0]];
        assert!(fits, "[attention] expected lengths as u32 [{}], got {lengths:?}", q[0]);
    }
    if let Some(segments) = &mask.segments {
        let fits = segments.dtype() == DType::U32 && *segments.shape() == [q[0], q[1]] && q[1] == k[1] && mask.start == 0;
        assert!(
            fits,
            "[attention] expected segments as u32 [{}, {}] and as many keys from 0, got {segments:?} and {k:?}",
            q[0], q[1]
        );
    }
}

/// The tensor itself, or a copy, in which the elements of the last axis are neighbours.
fn dense_rows(x: &Tensor) -> Tensor {
    if x.layout().strides()[3] == 1 { x.detach() } else { x.detach().whole() }
}
