//! Every op of the engine's list at the sizes that training and generation call it with.

use wgtune_engine::ops::{self, AdamWStep, Mask, Pages, SgdStep};
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Tensor};

use super::results::Direction::{Backward, Both};
use super::shapes::{Shapes, Sizes};
use super::workload::{Input, Workload};

/// LoRA's rank.
const RANK: usize = 8;

/// The workloads of a set of shapes, square products of `side` among them, each with a smaller one of its kind that can be checked
/// against f64.
pub fn workloads(shapes: Shapes, tokens: usize, side: usize) -> Vec<(Workload, Workload)> {
    let (whole, small, model) = match shapes.sizes(tokens) {
        Some(sizes) => (of_model(&sizes), of_model(&sizes.reduced()), sizes.model),
        None => (common(side, 4096), common(128, 64), "common"),
    };
    let of = |workload: Workload| workload.of_model(model);
    whole.into_iter().map(of).zip(small.into_iter().map(of)).collect()
}

/// Shapes that other libraries' benches use: square products of `side`, and `rows` of 1024.
fn common(side: usize, rows: usize) -> Vec<Workload> {
    let width = 1024;
    let wide = [rows, width];
    let mut all = vec![
        Workload::new(
            "matmul",
            "matmul NN",
            format!("{side} x {side} x {side}"),
            [Input::learnt([side, side]), Input::learnt([side, side])],
            |x| vec![ops::matmul(&x[0], &x[1])],
        )
        .independent("r., .c -> rc"),
    ];
    all.extend(both_ways(|| row_op("softmax", "softmax", wide, ops::softmax).independent("r. -> r.")));
    all.extend(both_ways(|| layer_norm(wide)));
    all.extend(both_ways(|| row_op("unary", "gelu", wide, ops::gelu)));
    all.push(add(wide));
    all.extend(both_ways(|| attention("attention causal", [4, 128, 128], [4, 4, 64], causal())));
    all
}

/// A decoder's training step and generation, op by op.
fn of_model(s: &Sizes) -> Vec<Workload> {
    let Sizes { tokens, hidden, heads, key_heads, head_dim, inside, vocabulary, .. } = *s;
    let (model, wide) = ([tokens, hidden], [tokens, inside]);
    let grouped = [heads, key_heads, head_dim];
    let mut all = matmuls(s);
    let full = || Mask::default();
    let window = || Mask { window: Some((tokens / 4).max(1)), ..causal() };
    let last = || Mask { start: tokens - 1, ..causal() };
    all.extend(both_ways(|| attention("attention causal", [1, tokens, tokens], grouped, causal())));
    all.extend(both_ways(|| attention("attention full", [1, tokens, tokens], grouped, full())));
    all.extend(both_ways(|| attention("attention window", [1, tokens, tokens], grouped, window())));
    all.push(attention("attention decode", [1, 1, tokens], grouped, last()));
    all.push(paged_attention(16, tokens, grouped));
    all.extend(both_ways(|| rms_norm(model)));
    all.extend(both_ways(|| layer_norm(model)));
    all.extend(both_ways(|| row_op("softmax", "softmax", [heads * tokens, tokens], ops::softmax).independent("r. -> r.")));
    all.extend(both_ways(|| row_op("log_softmax", "log_softmax", [tokens.min(64), vocabulary], ops::log_softmax)));
    all.extend(both_ways(|| row_op("unary", "gelu", wide, ops::gelu)));
    all.extend(both_ways(|| row_op("unary", "silu", wide, ops::silu)));
    all.extend(both_ways(|| swiglu(wide)));
    all.push(add(model));
    all.extend(both_ways(|| mul(model)));
    all.extend(both_ways(|| row_op("dropout", "dropout", model, |x| ops::dropout(x, Philox::new(7), 0.1))));
    all.extend(both_ways(|| rope(tokens, heads, head_dim)));
    all.extend(both_ways(|| rms_norm_rope(tokens, heads, head_dim)));
    all.extend(losses(tokens, hidden, vocabulary));
    all.extend(embedding(tokens, hidden, vocabulary));
    all.extend(optimisers([inside, hidden]));
    all.extend(movers(s));
    all.extend(reductions(model, vocabulary));
    all
}

/// NT is how a layer is applied, NN how its input's gradient comes about, TN how its weight's does.
fn matmuls(s: &Sizes) -> Vec<Workload> {
    let Sizes { tokens, hidden, inside, vocabulary, .. } = *s;
    vec![
        linear("matmul NT up", tokens, hidden, inside, DType::F32),
        linear("matmul NT down", tokens, inside, hidden, DType::F32),
        linear("matmul NT logits", tokens, hidden, vocabulary, DType::F32),
        product("matmul NN up", [tokens, inside], [inside, hidden], "r., .c -> rc", |x| ops::matmul(&x[0], &x[1])),
        product("matmul TN up", [tokens, inside], [tokens, hidden], ".r, .c -> rc", |x| ops::matmul(&x[0].transpose(), &x[1])),
        linear("matmul skinny, LoRA A", tokens, hidden, RANK, DType::F32),
        linear("matmul skinny, LoRA B", tokens, RANK, hidden, DType::F32),
        linear("matmul one row, up", 1, hidden, inside, DType::F32),
        linear("matmul one row, logits", 1, hidden, vocabulary, DType::F32),
        linear("matmul bf16 weight, up", tokens, hidden, inside, DType::BF16),
        linear("matmul bf16 weight, one row", 1, hidden, inside, DType::BF16),
        linear("matmul NT up", tokens, hidden, inside, DType::F32).to(Backward),
    ]
}

/// x W^T.
fn linear(name: &str, tokens: usize, inputs: usize, outputs: usize, dtype: DType) -> Workload {
    let weight = match dtype {
        DType::F32 => Input::learnt([outputs, inputs]),
        _ => Input::given([outputs, inputs], dtype),
    };
    let shape = format!("{tokens} x {inputs} x {outputs}");
    Workload::new("matmul", name, shape, [Input::learnt([tokens, inputs]), weight], |x| vec![ops::linear(&x[0], &x[1])])
        .independent("r., c. -> rc")
}

fn product(
    name: &str,
    a: [usize; 2],
    b: [usize; 2],
    axes: &'static str,
    call: impl Fn(&[Tensor]) -> Tensor + 'static,
) -> Workload {
    let shape = format!("{} and {}", of(&a), of(&b));
    Workload::new("matmul", name, shape, [Input::learnt(a), Input::learnt(b)], move |x| vec![call(x)]).independent(axes)
}

fn causal() -> Mask {
    Mask { causal: true, ..Mask::default() }
}

fn attention(name: &str, [rows, queries, keys]: [usize; 3], [heads, key_heads, head_dim]: [usize; 3], mask: Mask) -> Workload {
    let inputs = [
        Input::learnt([rows, queries, heads, head_dim]),
        Input::learnt([rows, keys, key_heads, head_dim]),
        Input::learnt([rows, keys, key_heads, head_dim]),
    ];
    let over = if queries == keys { format!("{rows} x {keys}") } else { format!("{queries} over {keys}") };
    let shape = format!("{over}, {heads}/{key_heads} heads of {head_dim}");
    Workload::new("attention", name, shape, inputs, move |x| vec![ops::attention(&x[0], &x[1], &x[2], &mask)])
        .independent("b.h., b.h., b.h. -> b.h.")
}

/// One query a row over pages of 64 tokens, in which all rows lie one behind the other.
fn paged_attention(rows: usize, keys: usize, [heads, key_heads, head_dim]: [usize; 3]) -> Workload {
    let pages = keys.div_ceil(64);
    let pool = [rows * pages, 64, key_heads, head_dim];
    let inputs =
        [Input::learnt([rows, 1, heads, head_dim]), Input::learnt(pool), Input::learnt(pool), Input::counting([rows, pages])];
    let shape = format!("{rows} x 1 over {keys}, {heads}/{key_heads} heads of {head_dim}");
    Workload::new("attention", "attention decode in pages", shape, inputs, move |x| {
        let lengths = x[0].device().tensor_u32(&vec![keys as u32; rows], [rows]);
        vec![ops::paged_attention(&x[0], &x[1], &x[2], &Pages { table: x[3].clone(), lengths }, None)]
    })
}

fn row_op(op: &'static str, name: &str, shape: [usize; 2], call: impl Fn(&Tensor) -> Tensor + 'static) -> Workload {
    Workload::new(op, name, of(&shape), [Input::learnt(shape)], move |x| vec![call(&x[0])])
}

fn rms_norm(shape: [usize; 2]) -> Workload {
    let inputs = [Input::learnt(shape), Input::learnt([shape[1]])];
    Workload::new("norm", "rms_norm", of(&shape), inputs, |x| vec![ops::rms_norm(&x[0], &x[1], 1e-5)]).independent("r., . -> r.")
}

fn layer_norm(shape: [usize; 2]) -> Workload {
    let inputs = [Input::learnt(shape), Input::learnt([shape[1]]), Input::learnt([shape[1]])];
    Workload::new("norm", "layer_norm", of(&shape), inputs, |x| vec![ops::layer_norm(&x[0], &x[1], &x[2], 1e-5)])
        .independent("r., ., . -> r.")
}

fn swiglu(shape: [usize; 2]) -> Workload {
    let inputs = [Input::learnt(shape), Input::learnt(shape)];
    Workload::new("swiglu", "swiglu", of(&shape), inputs, |x| vec![ops::swiglu(&x[0], &x[1])]).independent("r., r. -> r.")
}

fn add(shape: [usize; 2]) -> Workload {
    let inputs = [Input::learnt(shape), Input::learnt(shape)];
    Workload::new("binary", "add", of(&shape), inputs, |x| vec![ops::add(&x[0], &x[1])]).independent("r., r. -> r.")
}

fn mul(shape: [usize; 2]) -> Workload {
    let inputs = [Input::learnt(shape), Input::learnt(shape)];
    Workload::new("binary", "mul", of(&shape), inputs, |x| vec![ops::mul(&x[0], &x[1])]).independent("r., r. -> r.")
}

fn rope(tokens: usize, heads: usize, head_dim: usize) -> Workload {
    let shape = [1, tokens, heads, head_dim];
    let table = || Input::given([tokens, head_dim / 2], DType::F32);
    let inputs = [Input::learnt(shape), table(), table(), Input::counting([1, tokens])];
    Workload::new("rope", "rope", of(&shape), inputs, |x| vec![ops::rope(&x[0], &x[1], &x[2], &x[3])])
}

fn rms_norm_rope(tokens: usize, heads: usize, head_dim: usize) -> Workload {
    let shape = [1, tokens, heads, head_dim];
    let table = || Input::given([tokens, head_dim / 2], DType::F32);
    let inputs = [Input::learnt(shape), Input::given([head_dim], DType::F32), table(), table(), Input::counting([1, tokens])];
    let call = |x: &[Tensor]| vec![ops::rms_norm_rope(&x[0], &x[1], 1e-5, &x[2], &x[3], &x[4])];
    Workload::new("rms_norm_rope", "rms_norm_rope", of(&shape), inputs, call)
}

/// The gradient of a loss is computed with the loss, so both go together.
fn losses(tokens: usize, hidden: usize, vocabulary: usize) -> Vec<Workload> {
    let logits = || {
        let inputs = [Input::learnt([tokens, vocabulary]), Input::below([tokens], vocabulary)];
        let call = |x: &[Tensor]| vec![ops::cross_entropy(&x[0], &x[1]).loss];
        Workload::new("cross_entropy", "cross_entropy", of(&[tokens, vocabulary]), inputs, call)
    };
    // Of weights as large as hidden states most probabilities would be denormal numbers, which some processors take far longer for.
    let projected = || {
        let inputs = [Input::learnt([tokens, hidden]), Input::weight([vocabulary, hidden]), Input::below([tokens], vocabulary)];
        let call = |x: &[Tensor]| vec![ops::linear_cross_entropy(&x[0], &x[1], &x[2]).loss];
        let shape = format!("{tokens} x {hidden} x {vocabulary}");
        Workload::new("linear_cross_entropy", "linear_cross_entropy", shape, inputs, call)
    };
    let of_each = || {
        let inputs = [Input::learnt([tokens, hidden]), Input::weight([vocabulary, hidden]), Input::below([tokens], vocabulary)];
        let call = |x: &[Tensor]| {
            let ops::LogProbs { log_probs, entropy, .. } = ops::log_probs(&x[0], &x[1], &x[2], 1.0);
            vec![log_probs, entropy]
        };
        Workload::new("log_probs", "log_probs", format!("{tokens} x {hidden} x {vocabulary}"), inputs, call)
            .independent("r., .., r -> r, r")
    };
    vec![logits(), logits().to(Both), projected(), projected().to(Both), of_each(), of_each().to(Both)]
}

fn embedding(tokens: usize, hidden: usize, vocabulary: usize) -> Vec<Workload> {
    let shape = format!("{tokens} of {vocabulary} x {hidden}");
    let gather = {
        let inputs = [Input::learnt([vocabulary, hidden]), Input::below([tokens], vocabulary)];
        Workload::new("gather", "embedding gather", shape.clone(), inputs, |x| vec![ops::gather(&x[0], &x[1])])
            .independent(".c, . -> .c")
    };
    let scatter = {
        let inputs = [Input::learnt([tokens, hidden]), Input::below([tokens], vocabulary)];
        let call = move |x: &[Tensor]| vec![ops::scatter_add(&x[0], &x[1], vocabulary)];
        Workload::new("gather", "embedding scatter", shape, inputs, call).independent(".c, . -> .c")
    };
    vec![gather, scatter]
}

/// Of one matrix.
fn optimisers(shape: [usize; 2]) -> Vec<Workload> {
    let adamw = {
        let inputs =
            [Input::learnt(shape), Input::learnt(shape), Input::positive(shape), Input::learnt(shape), Input::positive([1])];
        Workload::new("adamw", "adamw", of(&shape), inputs, |x| {
            let step = AdamWStep { number: 10, learning_rate: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
            ops::adamw_(&x[0], &x[1], &x[2], &x[3], &x[4], &step);
            x[..3].to_vec()
        })
        .independent("r., r., r., r., . -> r., r., r.")
    };
    let sgd = {
        let inputs = [Input::learnt(shape), Input::learnt(shape), Input::learnt(shape), Input::positive([1])];
        Workload::new("sgd", "sgd", of(&shape), inputs, |x| {
            let step = SgdStep { learning_rate: 1e-4, momentum: 0.9, weight_decay: 0.1 };
            ops::sgd_(&x[0], &x[1], &x[2], &x[3], &step);
            x[..2].to_vec()
        })
        .independent("r., r., r., . -> r., r.")
    };
    let norm = row_op("clip", "gradient_norm", shape, |x| ops::gradient_norm(&[x]));
    vec![adamw, sgd, norm]
}

/// What only moves numbers.
fn movers(s: &Sizes) -> Vec<Workload> {
    let Sizes { tokens, hidden, heads, key_heads, head_dim, inside, .. } = *s;
    let weight = [inside, hidden];
    let split = [tokens, heads, head_dim];
    let cache = [1, 2 * tokens, key_heads, head_dim];
    vec![
        row_op("ceilings", "stream", weight, ops::stream),
        row_op("full", "full", [tokens, hidden], |x| ops::full(x.device(), 1.0, x.shape())),
        row_op("scale", "scale", [tokens, hidden], |x| ops::scale(x, 0.5)),
        row_op("cast", "cast f32 to bf16", weight, |x| ops::cast(x, DType::BF16)),
        Workload::new("cast", "cast bf16 to f32", of(&weight), [Input::given(weight, DType::BF16)], |x| {
            vec![ops::cast(&x[0], DType::F32)]
        }),
        Workload::new("copy", "copy heads to the front", of(&split), [Input::learnt(split)], |x| {
            vec![ops::copy(&x[0].permute(&[1, 0, 2]))]
        }),
        Workload::new("cat", "cat", format!("2 of {}", of(&split)), [Input::learnt(split), Input::learnt(split)], |x| {
            vec![ops::cat(&[&x[0], &x[1]], 1)]
        }),
        Workload::new(
            "write_pages",
            "write_pages, one token",
            of(&cache),
            [Input::zeros(cache), Input::learnt([1, 1, key_heads, head_dim])],
            {
                move |x| {
                    let device = x[0].device();
                    let lengths = device.tensor_u32(&[tokens as u32 + 1], [1]);
                    ops::write_pages(&x[0], &x[1], &Pages { table: device.tensor_u32(&[0], [1, 1]), lengths });
                    vec![x[0].clone()]
                }
            },
        ),
        Workload::new(
            "where",
            "where",
            of(&[tokens, hidden]),
            [Input::below([tokens, hidden], 2), Input::learnt([tokens, hidden]), Input::learnt([tokens, hidden])],
            |x| vec![ops::where_(&x[0], &x[1], &x[2])],
        ),
    ]
}

fn reductions(shape: [usize; 2], vocabulary: usize) -> Vec<Workload> {
    vec![
        row_op("reduce", "sum over rows", shape, |x| ops::sum_axis(x, 0)),
        row_op("reduce", "sum of each row", shape, |x| ops::sum_axis(x, 1)),
        row_op("reduce", "argmax over the vocabulary", [1, vocabulary], |x| ops::argmax_axis(x, 1)),
    ]
}

/// A workload forward, and the gradient of all it was given.
fn both_ways(workload: impl Fn() -> Workload) -> [Workload; 2] {
    [workload(), workload().to(Backward)]
}

fn of(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_op_of_the_engine_is_measured_and_no_name_comes_twice() {
        let all = workloads(Shapes::Small, 16, 64);
        let measured: BTreeSet<&str> = all.iter().map(|(workload, _)| workload.op).collect();
        // The ladder has shapes of its own.
        let known: BTreeSet<&str> = ops::OPS.iter().map(|op| op.name).filter(|name| *name != "ladder").collect();
        assert_eq!(measured, known);
        let titles: BTreeSet<String> = all.iter().map(|(workload, _)| workload.title()).collect();
        assert_eq!(titles.len(), all.len());
    }
}
