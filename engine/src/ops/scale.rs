//! A tensor times a number.

use super::{Op, full, mul};
use crate::tensor::Tensor;
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "scale", kernels: &[], cases };

/// c x, for a number c that no gradient flows into.
#[track_caller]
pub fn scale(x: &Tensor, factor: f32) -> Tensor {
    mul(x, &full(x.device(), factor, []))
}

fn cases() -> Vec<Case> {
    vec![Case::new("scale", [Input::any([3, 4])], |x| vec![scale(&x[0], -1.5)])]
}
