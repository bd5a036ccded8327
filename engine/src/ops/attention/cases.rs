//! What the laws run attention on, and the same by primitives.

use super::{Mask, Pages, attention, attention_in_parts, attention_scaled, paged_attention};
use crate::ops::{add, cat, gather, matmul, mul, scale, softmax};
use crate::tensor::Tensor;
use crate::testing::{Case, EDGES, Input};

/// The sizes of one case.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    key_heads: usize,
    dim: usize,
}

/// A mask before it has tensors, so that the same numbers can be had on the host.
#[derive(Clone, Default)]
struct Plan {
    causal: bool,
    start: usize,
    prefix: usize,
    window: Option<usize>,
    lengths: Option<Vec<u32>>,
    segments: Option<Vec<u32>>,
    /// How many parts of the keys, and of the queries in their gradients, where it is not the device that chooses.
    parts: Option<[u32; 2]>,
}

impl Plan {
    fn mask(&self, at: &Tensor) -> Mask {
        let tensor = |part: &Option<Vec<u32>>, rank: usize| {
            let shape = &at.shape()[..rank];
            part.as_ref().map(|values| at.device().tensor_u32(values, shape))
        };
        let (lengths, segments) = (tensor(&self.lengths, 1), tensor(&self.segments, 2));
        Mask { causal: self.causal, start: self.start, prefix: self.prefix, window: self.window, lengths, segments }
    }

    /// Read off the documentation of [`Mask`], one pair at a time.
    fn shows(&self, sizes: &Sizes, batch: usize, query: usize, key: usize) -> bool {
        let position = self.start + query;
        let segment = |segments: &Vec<u32>| segments[batch * sizes.queries + query] == segments[batch * sizes.queries + key];
        (!self.causal || key <= position || key < self.prefix)
            && self.window.is_none_or(|window| key + window > position)
            && self.lengths.as_ref().is_none_or(|lengths| key < lengths[batch] as usize)
            && self.segments.as_ref().is_none_or(segment)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let square = |size| Sizes { batch: 1, queries: size, keys: size, heads: 2, key_heads: 1, dim: 8 };
    let (full, causal) = (Plan::default(), Plan { causal: true, ..Plan::default() });
    let mut cases = Vec::new();
    for size in EDGES {
        cases.push(case(format!("causal {size}"), square(size), &causal));
    }
    for (queries, keys) in [(1, 0), (0, 3), (65, 1), (3, 257), (257, 63)] {
        cases.push(case(format!("full {queries} x {keys}"), Sizes { queries, keys, ..square(0) }, &full));
    }
    for dim in [10, 64, 80, 128, 256] {
        let sizes = Sizes { batch: 2, queries: 35, keys: 35, heads: 2, key_heads: 2, dim };
        cases.push(case(format!("of head dimension {dim}"), sizes, &causal));
    }
    let grouped = Sizes { batch: 2, queries: 70, keys: 70, heads: 6, key_heads: 2, dim: 8 };
    let segments = |lengths: &[usize]| lengths.iter().zip(7..).flat_map(|(&length, id)| vec![id; length]).collect::<Vec<u32>>();
    let packed = Some([segments(&[1, 30, 39]), segments(&[66, 4])].concat());
    for (name, sizes, plan) in [
        ("of grouped heads", grouped, causal.clone()),
        ("of one query over a long cache", Sizes { queries: 1, keys: 2500, ..grouped }, Plan { start: 2400, ..causal.clone() }),
        (
            "from an offset into a cache that is not full",
            Sizes { queries: 9, keys: 150, ..grouped },
            Plan { start: 100, ..causal.clone() },
        ),
        ("with a prefix", grouped, Plan { prefix: 33, ..causal.clone() }),
        ("with a prefix and a window", grouped, Plan { prefix: 20, window: Some(24), ..causal.clone() }),
        ("with a prefix past the length", grouped, Plan { prefix: 30, lengths: Some(vec![12, 70]), ..causal.clone() }),
        ("in parts", grouped, Plan { parts: Some([3, 2]), ..causal.clone() }),
        (
            "in parts of one key, of one query",
            Sizes { queries: 1, keys: 7, ..grouped },
            Plan { start: 4, parts: Some([9, 2]), ..causal.clone() },
        ),
        (
            "in parts with lengths and a window",
            Sizes { queries: 5, keys: 150, dim: 64, ..grouped },
            Plan { start: 100, window: Some(60), lengths: Some(vec![103, 0]), parts: Some([4; 2]), ..causal.clone() },
        ),
        ("with a window", grouped, Plan { window: Some(5), ..causal.clone() }),
        ("with a window both ways", grouped, Plan { window: Some(3), ..full.clone() }),
        (
            "with a window past the keys",
            Sizes { queries: 6, keys: 20, ..grouped },
            Plan { start: 20, window: Some(4), ..full.clone() },
        ),
        ("with lengths", grouped, Plan { lengths: Some(vec![66, 1]), ..full.clone() }),
        ("with lengths and none seen", grouped, Plan { lengths: Some(vec![0, 64]), ..causal.clone() }),
        (
            "with a window that ends before the length",
            grouped,
            Plan { lengths: Some(vec![20, 70]), window: Some(9), ..causal.clone() },
        ),
        ("with segments", grouped, Plan { segments: packed.clone(), ..causal.clone() }),
        ("with segments both ways", grouped, Plan { segments: packed.clone(), ..full.clone() }),
        ("with segments, of queries in parts", grouped, Plan { segments: packed, parts: Some([1, 3]), ..causal.clone() }),
        (
            "with segments that alternate",
            Sizes { queries: 3, keys: 3, ..grouped },
            Plan { segments: Some(vec![0, 1, 0, 1, 0, 1]), ..causal.clone() },
        ),
    ] {
        cases.push(case(name.to_string(), sizes, &plan));
    }
    cases.push(of_a_fused_projection());
    cases.push(of_transposed_inputs());
    cases.extend(in_pages());
    cases
}

fn case(name: String, sizes: Sizes, plan: &Plan) -> Case {
    let Sizes { batch, queries, keys, heads, key_heads, dim } = sizes;
    let inputs = [[batch, queries, heads, dim], [batch, keys, key_heads, dim], [batch, keys, key_heads, dim]].map(Input::any);
    // A lone key has weight 1 whatever the query: the gradients of both are rounding errors around 0, relative to nothing.
    let scored = move |x: &Tensor| if keys == 1 { x.detach() } else { x.clone() };
    let (fused, by_parts) = (plan.clone(), plan.clone());
    let run = move |x: &[Tensor]| {
        let (query, key, mask) = (scored(&x[0]), scored(&x[1]), fused.mask(&x[0]));
        match fused.parts {
            Some(parts) => vec![attention_in_parts(&query, &key, &x[2], &mask, 1.0 / (dim as f32).sqrt(), parts)],
            None => vec![attention(&query, &key, &x[2], &mask)],
        }
    };
    // A key's gradient sums over the queries of its group, each from a sum over keys and one over D.
    let case = Case::new(format!("attention {name}"), inputs, run).terms(queries * heads / key_heads + keys + dim).cancels();
    match queries * keys {
        0 => case,
        _ => case.composed(move |x| vec![composed(&scored(&x[0]), &scored(&x[1]), &x[2], &sizes, &by_parts)]),
    }
}

/// Scores by a matrix product, -1e30 added where hidden, softmax, and another product; rows that see nothing are set to 0.
fn composed(query: &Tensor, key: &Tensor, value: &Tensor, sizes: &Sizes, plan: &Plan) -> Tensor {
    let Sizes { batch, queries, keys, heads, key_heads, dim } = *sizes;
    let (mut bias, mut sees) = (Vec::new(), Vec::new());
    for row in 0..batch {
        for query in 0..queries {
            let shown: Vec<bool> = (0..keys).map(|key| plan.shows(sizes, row, query, key)).collect();
            sees.push(if shown.contains(&true) { 1.0 } else { 0.0 });
            bias.extend(shown.iter().map(|&shown| if shown { 0.0 } else { -1e30 }));
        }
    }
    let bias = query.device().tensor(&bias, [batch, 1, 1, queries, keys]);
    let sees = query.device().tensor(&sees, [batch, queries, 1, 1]);
    let query = query.permute(&[0, 2, 1, 3]).reshape([batch, key_heads, heads / key_heads, queries, dim]);
    let [key, value] = [key, value].map(|x| x.permute(&[0, 2, 1, 3]).reshape([batch, key_heads, 1, keys, dim]));
    let scores = scale(&matmul(&query, &key.transpose()), 1.0 / (dim as f32).sqrt());
    let output = matmul(&softmax(&add(&scores, &bias)), &value);
    mul(&output.reshape([batch, heads, queries, dim]).permute(&[0, 2, 1, 3]), &sees)
}

/// Query, key and value as slices of one product: 3 + 1 + 1 heads side by side.
fn of_a_fused_projection() -> Case {
    let run = |x: &[Tensor]| {
        let heads = x[0].reshape([2, 67, 5, 8]);
        let [query, key, value] = [0..3, 3..4, 4..5].map(|range| heads.slice(2, range));
        vec![attention_scaled(&query, &key, &value, &Mask { causal: true, ..Mask::default() }, 0.5)]
    };
    let by_copies = |x: &[Tensor]| {
        let heads = x[0].reshape([2, 67, 5, 8]);
        let [query, key, value] = [0..3, 3..4, 4..5].map(|range| scale(&heads.slice(2, range), 1.0));
        // 0.5 = (0.5 sqrt(8)) / sqrt(8)
        let query = scale(&query, 0.5 * 8f32.sqrt());
        let sizes = Sizes { batch: 2, queries: 67, keys: 67, heads: 3, key_heads: 1, dim: 8 };
        vec![composed(&query, &key, &value, &sizes, &Plan { causal: true, ..Plan::default() })]
    };
    Case::new("attention of slices of a fused projection", [Input::any([2, 67, 40])], run)
        .terms(280)
        .cancels()
        .composed(by_copies)
}

/// Keys as [B, KV, S, D], as a cache may hold them; values with D first, which are copied.
fn of_transposed_inputs() -> Case {
    let inputs = [Input::any([2, 9, 4, 8]), Input::any([2, 2, 13, 8]), Input::any([2, 8, 2, 13])];
    let lain = |x: &[Tensor]| [x[0].clone(), x[1].permute(&[0, 2, 1, 3]), x[2].permute(&[0, 3, 2, 1])];
    let run = move |x: &[Tensor]| {
        let [query, key, value] = lain(x);
        vec![attention(&query, &key, &value, &Mask::default())]
    };
    let sizes = Sizes { batch: 2, queries: 9, keys: 13, heads: 4, key_heads: 2, dim: 8 };
    let by_parts = move |x: &[Tensor]| {
        let [query, key, value] = lain(x);
        vec![composed(&query, &key, &value, &sizes, &Plan::default())]
    };
    Case::new("attention of transposed inputs", inputs, run).terms(39).cancels().composed(by_parts)
}

/// Rows of any lengths in pages of a pool, in no order, and the same row by row, its keys and values gathered.
fn in_pages() -> Vec<Case> {
    let of = |name: &str, [queries, size, dim]: [usize; 3], window: Option<usize>, lengths: &[usize]| {
        let (rows, lengths) = (lengths.len(), lengths.to_vec());
        let width = lengths.iter().map(|length| length.div_ceil(size)).max().unwrap_or(0);
        let all = rows * width;
        // 7 has no divisor in common with these numbers of pages.
        let table: Vec<u32> = (0..all).map(|at| ((at * 7 + 3) % all) as u32).collect();
        let inputs = [
            Input::any([rows, queries, 6, dim]),
            Input::any([all, size, 2, dim]),
            Input::any([all, size, 2, dim]),
            Input::given_indices([rows, width], &table),
            Input::given_indices([rows], &lengths.iter().map(|&length| length as u32).collect::<Vec<_>>()),
        ];
        let run = move |x: &[Tensor]| {
            let pages = Pages { table: x[3].clone(), lengths: x[4].clone() };
            vec![paged_attention(&x[0].detach(), &x[1].detach(), &x[2].detach(), &pages, window)]
        };
        let terms = lengths.iter().max().map_or(1, |length| length + dim);
        let row_by_row = move |x: &[Tensor]| {
            let row = |row: usize| {
                let length = lengths[row];
                let gathered = |pool: &Tensor| {
                    let pages = pool.detach().reshape([all, size * 2 * dim]);
                    let own = gather(&pages, &x[3].slice(0, row..row + 1).reshape([width]));
                    own.reshape([1, width * size, 2, dim]).slice(1, 0..length)
                };
                let before = queries.saturating_sub(length);
                let query = x[0].detach().slice(0, row..row + 1);
                let zeros = query.device().zeros([1, before, 6, dim]);
                let mask = Mask { causal: true, start: length.saturating_sub(queries), window, ..Mask::default() };
                let output = attention(&query.slice(1, before..queries), &gathered(&x[1]), &gathered(&x[2]), &mask);
                cat(&[&zeros, &output], 1)
            };
            vec![cat(&(0..lengths.len()).map(row).collect::<Vec<_>>().iter().collect::<Vec<_>>(), 0)]
        };
        Case::new(format!("attention in pages, {name}"), inputs, run).terms(terms).cancels().composed(row_by_row)
    };
    vec![
        of("of one token a row", [1, 16, 8], None, &[40, 1, 64, 17]),
        of("of one token over many keys", [1, 64, 64], None, &[1500, 3]),
        of("of whole rows", [70, 32, 8], None, &[70]),
        of("of what follows", [9, 10, 16], None, &[150, 9]),
        of("of rows with fewer tokens", [66, 8, 8], None, &[3, 66, 70]),
        of("with a window", [5, 16, 64], Some(21), &[150, 40, 2]),
        of("of odd pages and heads", [3, 7, 10], Some(300), &[257, 63, 65]),
    ]
}
