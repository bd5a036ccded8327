//! The logarithm of softmax.

use super::{Op, exp, log, max_axis, sub, sum_axis};
use crate::tensor::Tensor;
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "log_softmax", kernels: &[], cases };

/// y_i = x_i - max x - ln sum_j e^(x_j - max x) over the last axis, which is not empty.
///
/// Derivative, for the gradient g: dx = g - softmax(x) sum_j g_j.
#[track_caller]
pub fn log_softmax(x: &Tensor) -> Tensor {
    assert!(x.rank() > 0, "[log_softmax] expected at least one axis, got {x:?}");
    let axis = x.rank() - 1;
    let kept = x.shape().with(axis, 1);
    let shifted = sub(x, &max_axis(&x.detach(), axis).reshape(kept));
    sub(&shifted, &log(&sum_axis(&exp(&shifted), axis)).reshape(kept))
}

fn cases() -> Vec<Case> {
    let sizes = EDGES.into_iter().filter(|&size| size > 0);
    let case = |size| Case::new(format!("log_softmax {size}"), [Input::any([3, size])], |x| vec![log_softmax(&x[0])]).terms(size);
    sizes.map(case).collect()
}
