//! The output projection and its loss in one, without ever holding all logits.

use super::cross_entropy::{CrossEntropy, totals};
use super::log_probs::{Pass, Projection};
use super::{IGNORE, Op, cast, cross_entropy, linear, mul};
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "linear_cross_entropy", kernels: &[], cases };

/// `cross_entropy(linear(hidden, weight), targets)` for hidden [.., H], a weight [V, H] (f32, or frozen f16 or bf16) and
/// targets [..] (u32, each below V or [`IGNORE`]), a few rows at a time: at most 64 MiB of logits exist at once.
///
/// The derivatives are computed with the loss, dlogits in place of the logits (Hsu et al. 2024, "Liger Kernel",
/// arXiv:2410.10989), and wait to be scaled by the loss's gradient: dhidden = dlogits W, dW = dlogits^T hidden.
#[track_caller]
pub fn linear_cross_entropy(hidden: &Tensor, weight: &Tensor, targets: &Tensor) -> CrossEntropy {
    let projection = Projection::new("linear_cross_entropy", hidden, weight, targets, 1.0);
    let Pass { statistics, dhidden, dweight } = projection.run(None, [hidden, weight].map(Tensor::requires_grad));
    let sums = CrossEntropy::of_totals(&totals(&statistics));
    let loss = sums.loss.with_rule("linear_cross_entropy", [hidden, weight], move |g, _| {
        [dhidden, dweight].map(|gradient| gradient.map(|gradient| mul(&gradient, g)))
    });
    CrossEntropy { loss, ..sums }
}

fn cases() -> Vec<Case> {
    let loss = |x: &[Tensor]| vec![linear_cross_entropy(&x[0], &x[1], &x[2]).loss];
    let composed = |x: &[Tensor]| vec![cross_entropy(&linear(&x[0], &x[1]), &x[2]).loss];
    let mut cases = Vec::new();
    for [rows, width, classes] in [[0, 4, 5], [1, 3, 2], [5, 64, 65], [64, 16, 257], [1100, 6, 9]] {
        let inputs = [Input::any([rows, width]), Input::any([classes, width]), Input::indices([rows], classes as u32)];
        let case = Case::new(format!("linear_cross_entropy {rows}x{width}x{classes}"), inputs, loss);
        cases.push(case.terms(rows.max(width * classes)).composed(composed));
    }
    let ignored = |targets: &[u32]| [Input::any([2, 2, 6]), Input::any([8, 6]), Input::given_indices([2, 2], targets)];
    let case = Case::new("linear_cross_entropy of ignored rows", ignored(&[IGNORE, 7, 0, IGNORE]), loss);
    cases.push(case.terms(48).composed(composed));
    cases.push(Case::new("linear_cross_entropy of nothing but ignored rows", ignored(&[IGNORE; 4]), loss));
    for dtype in [DType::F16, DType::BF16] {
        let inputs = [Input::any([5, 8]), Input::fixed([9, 8]), Input::indices([5], 9)];
        let case = Case::new(format!("linear_cross_entropy with a frozen {dtype} weight"), inputs, move |x| {
            vec![linear_cross_entropy(&x[0], &cast(&x[1], dtype), &x[2]).loss]
        });
        cases.push(case.terms(72));
    }
    let frozen = [Input::fixed([600, 8]), Input::any([9, 8]), Input::indices([600], 9)];
    cases.push(Case::new("linear_cross_entropy of frozen inputs", frozen, loss).terms(600).composed(composed));
    let evaluated = [Input::fixed([600, 8]), Input::fixed([9, 8]), Input::indices([600], 9)];
    cases.push(
        Case::new("linear_cross_entropy without a gradient", evaluated, |x| {
            let CrossEntropy { loss, entropy, correct } = linear_cross_entropy(&x[0], &x[1], &x[2]);
            vec![loss, entropy, correct]
        })
        .terms(600),
    );
    cases
}
