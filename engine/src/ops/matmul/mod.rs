//! Matrix products.

mod bands;
mod cases;
mod epilogue;
mod halves;
mod params;
mod parts;
mod product;
mod row;

use super::{Op, add, sum_to};
use crate::Shape;
use crate::dtype::DType;
use crate::kernel::AnyKernel;
use crate::tensor::{Tensor, dispatch};
use epilogue::Ending;
pub use epilogue::{Activation, Epilogue};
pub(super) use halves::peak;
use halves::{Halve, Peaks};
use params::{Params, Side, two};
use parts::SumParts;
pub(super) use parts::{sum_lowered, sum_parts};
use product::{Matmul, MatmulAccumulate};
use row::Matvec;
pub(crate) use row::storage;

pub(crate) const OP: Op = Op {
    name: "matmul",
    kernels: &[
        AnyKernel::of::<Matmul>(),
        AnyKernel::of::<MatmulAccumulate>(),
        AnyKernel::of::<Matvec>(),
        AnyKernel::of::<Peaks>(),
        AnyKernel::of::<Halve>(),
        AnyKernel::of::<SumParts>(),
    ],
    cases: cases::cases,
};

/// a b over the last two axes: [.., M, K] times [.., K, N] gives [.., M, N]; the axes before broadcast. Either side may be a
/// view, so a transposed operand costs no copy. b may be stored as f16 or bf16 if it takes no gradient.
///
/// Derivatives, for the gradient g: da = g b^T and db = a^T g, summed over broadcast axes.
#[track_caller]
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    matmul_with(a, b, &Epilogue::default())
}

/// `activation(scale * a b + bias) + residual` in one kernel, a and b as in [`matmul`].
///
/// Derivatives without an activation, for the gradient g: da = scale g b^T and db = scale a^T g, summed over broadcast axes;
/// dbias = g summed over rows; dresidual = g.
#[track_caller]
pub fn matmul_with(a: &Tensor, b: &Tensor, epilogue: &Epilogue) -> Tensor {
    let shape = product_shape(a, b);
    let narrow = matches!(b.dtype(), DType::F16 | DType::BF16) && !b.requires_grad();
    assert!(
        a.dtype() == DType::F32 && (b.dtype() == DType::F32 || narrow),
        "[matmul] expected f32 (or a frozen f16 or bf16 right side), got {a:?} and {b:?}"
    );
    let Epilogue { scale, bias, activation, residual } = *epilogue;
    let fits = |x: &Tensor, shape: &[usize]| x.dtype() == DType::F32 && x.shape()[..] == *shape;
    assert!(
        bias.is_none_or(|bias| fits(bias, &shape[shape.len() - 1..])),
        "[matmul] expected a bias for each column of {shape:?}, got {bias:?}"
    );
    assert!(
        residual.is_none_or(|residual| fits(residual, &shape)),
        "[matmul] expected a residual of {shape:?}, got {residual:?}"
    );

    let wants_gradient = [Some(a), Some(b), bias, residual].into_iter().flatten().any(Tensor::requires_grad);
    if let (Some(activation), true) = (activation, wants_gradient) {
        let y = activation.apply(&matmul_with(a, b, &Epilogue { activation: None, residual: None, ..*epilogue }));
        return residual.map_or(y.clone(), |residual| add(&y, residual));
    }
    let (saved_a, saved_b) = (a.detach(), b.detach());
    let y = multiply(&saved_a, &saved_b, epilogue);
    let (absent, columns) = (saved_a.clone(), y.last_size());
    y.with_rule("matmul", [a, b, bias.unwrap_or(&absent), residual.unwrap_or(&absent)], move |g, needs| {
        let scaled = Epilogue { scale, ..Default::default() };
        [
            needs[0].then(|| sum_to(&multiply(g, &saved_b.transpose(), &scaled), saved_a.shape())),
            needs[1].then(|| match saved_b.is_whole() || saved_b.rank() != saved_a.rank() {
                true => sum_to(&multiply(&saved_a.transpose(), g, &scaled), saved_b.shape()),
                // A weight's transpose: its gradient lies as the weight does.
                false => sum_to(&multiply(&g.transpose(), &saved_a, &scaled), saved_b.transpose().shape()).transpose(),
            }),
            needs[2].then(|| sum_to(g, [columns].into())),
            needs[3].then(|| g.clone()),
        ]
    })
}

/// x W^T over the last axis: [.., K] with a weight [N, K] gives [.., N].
#[track_caller]
pub fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    linear_with(x, weight, &Epilogue::default())
}

/// `activation(scale * x W^T + bias) + residual`: [`linear`] with the epilogue of [`matmul_with`].
#[track_caller]
pub fn linear_with(x: &Tensor, weight: &Tensor, epilogue: &Epilogue) -> Tensor {
    let (shape, inputs) = (x.shape(), x.last_size());
    assert!(
        x.rank() > 0 && weight.rank() == 2 && weight.size(1) == inputs,
        "[linear] expected [.., K] and [N, K], got {shape:?} and {:?}",
        weight.shape()
    );
    let outputs = weight.size(0);
    let rows = x.reshape([shape[..shape.len() - 1].iter().product(), inputs]);
    let residual = epilogue.residual.map(|residual| residual.reshape([rows.size(0), outputs]));
    let epilogue = Epilogue { residual: residual.as_ref(), ..*epilogue };
    matmul_with(&rows, &weight.transpose(), &epilogue).reshape(shape.with(shape.len() - 1, outputs))
}

/// y += scale * a b, in place: y [.., M, N] fills its buffer, and nothing of this is on the tape.
#[track_caller]
pub fn matmul_accumulate(y: &Tensor, a: &Tensor, b: &Tensor, scale: f32) {
    let shape = product_shape(a, b);
    assert!(
        [y, a, b].iter().all(|x| x.dtype() == DType::F32 && !x.requires_grad()) && y.is_whole() && y.shape() == shape,
        "[matmul_accumulate] expected f32 tensors off the tape and a whole {shape:?} to add to, got {a:?}, {b:?} and {y:?}"
    );
    let (params, a, b) = arguments(a, b, &Epilogue { scale, ..Default::default() });
    dispatch::<MatmulAccumulate>(params, &[&a, &b, &a, &a, y, &a, &a]);
}

#[track_caller]
fn product_shape(a: &Tensor, b: &Tensor) -> Shape {
    assert!(
        a.rank() >= 2 && b.rank() >= 2 && a.last_size() == b.size(b.rank() - 2),
        "[matmul] expected [.., M, K] and [.., K, N], got {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    let batch = batch(a, b);
    Shape::new(&[&batch, &[a.size(a.rank() - 2), b.last_size()][..]].concat())
}

fn batch(a: &Tensor, b: &Tensor) -> Shape {
    Shape::new(&a.shape()[..a.rank() - 2]).broadcast(&Shape::new(&b.shape()[..b.rank() - 2]))
}

/// The product of two tensors off the tape.
fn multiply(a: &Tensor, b: &Tensor, epilogue: &Epilogue) -> Tensor {
    let y = a.device().empty(product_shape(a, b), DType::F32);
    let [bias, residual] = [epilogue.bias, epilogue.residual].map(|x| x.map(|x| x.detach().whole()));
    let (k, n) = (a.last_size(), b.last_size());
    let one_row = a.elements() == k && b.rank() == 2 && b.layout().strides() == [1, k] && k > 1 && n > 1;
    if one_row {
        let (a, ending) = (a.whole(), Ending::new(epilogue));
        let params =
            row::Params { n: n as u32, k: k as u32, offset: b.layout().offset as u32, dtype: storage(b.dtype()), ending };
        dispatch::<Matvec>(params, &[&a, b, bias.as_ref().unwrap_or(&a), residual.as_ref().unwrap_or(&a), &y]);
        return y;
    }
    let (params, a, b) = arguments(a, b, epilogue);
    dispatch::<Matmul>(params, &[&a, &b, bias.as_ref().unwrap_or(&a), residual.as_ref().unwrap_or(&a), &y, &a, &a]);
    y
}

/// A product's parameters, and its operands as those say that they lie.
fn arguments(a: &Tensor, b: &Tensor, epilogue: &Epilogue) -> (Params, Tensor, Tensor) {
    let (m, n, k) = (a.size(a.rank() - 2), b.last_size(), a.last_size());
    let batch = batch(a, b);
    let (a, a_side) = Side::of(a, &batch);
    let (b, b_side) = Side::of(b, &batch);
    let [outer, inner] = two(&batch);
    let params = Params {
        m: m as u32,
        n: n as u32,
        k: k as u32,
        outer,
        inner,
        a: a_side,
        b: b_side,
        ending: Ending::new(epilogue),
        turned: 0,
    };
    (params, a, b)
}
