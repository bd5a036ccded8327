//! The output projection and its loss in one, without ever holding all logits.

use super::cross_entropy::{CrossEntropy, statistics, statistics_and_gradient, totals};
use super::{IGNORE, Op, add, cast, cat, cross_entropy, linear, matmul, matmul_accumulate, matmul_of_gradient, mul};
use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "linear_cross_entropy", kernels: &[], cases };

/// The most that the logits held at once take.
const LOGITS_BYTES: usize = 64 << 20;
/// The most rows whose logits are held at once.
const MOST_ROWS: usize = 512;

/// `cross_entropy(linear(hidden, weight), targets)` for hidden [.., H], a weight [V, H] (f32, or frozen f16 or bf16) and
/// targets [..] (u32, each below V or [`IGNORE`]), a few rows at a time: at most 64 MiB of logits exist at once.
///
/// The derivatives are computed with the loss, dlogits in place of the logits (Hsu et al. 2024, "Liger Kernel",
/// arXiv:2410.10989), and wait to be scaled by the loss's gradient: dhidden = dlogits W, dW = dlogits^T hidden.
#[track_caller]
pub fn linear_cross_entropy(hidden: &Tensor, weight: &Tensor, targets: &Tensor) -> CrossEntropy {
    let width = hidden.last_size();
    assert!(
        hidden.rank() > 0 && weight.rank() == 2 && weight.size(1) == width,
        "[linear_cross_entropy] expected hidden [.., H] and a weight [V, H], got {hidden:?} and {weight:?}"
    );
    assert!(
        targets.dtype() == DType::U32 && targets.shape()[..] == hidden.shape()[..hidden.rank() - 1],
        "[linear_cross_entropy] expected u32 targets for each row of {hidden:?}, got {targets:?}"
    );
    let (rows, at_once) = (targets.elements(), rows_at_once(weight.size(0)));
    let [for_hidden, for_weight] = [hidden, weight].map(Tensor::requires_grad);
    let (inputs, weight_detached, targets) = (hidden.detach().reshape([rows, width]), weight.detach(), targets.whole());
    let mut sums = None;
    let (mut dhidden, mut dweight) = (Vec::new(), None);
    for first in (0..rows.max(1)).step_by(at_once) {
        let inputs = inputs.slice(0, first..(first + at_once).min(rows));
        let logits = matmul(&inputs, &weight_detached.transpose());
        if !for_hidden && !for_weight {
            accumulate(&mut sums, totals(&statistics(&logits, &targets, first)));
            continue;
        }
        accumulate(&mut sums, totals(&statistics_and_gradient(&logits, &targets, first)));
        if for_hidden {
            dhidden.push(matmul_of_gradient(&logits, &weight_detached));
        }
        if for_weight {
            match &dweight {
                Some(sum) => matmul_accumulate(sum, &logits.transpose(), &inputs, 1.0),
                None => dweight = Some(matmul_of_gradient(&logits.transpose(), &inputs)),
            }
        }
    }
    let sums = CrossEntropy::of_totals(&sums.expect("there is a first chunk, be it empty"));
    let dhidden = for_hidden.then(|| joined(&dhidden).reshape(hidden.shape()));
    let loss = sums.loss.with_rule("linear_cross_entropy", [hidden, weight], move |g, _| {
        [dhidden.map(|gradient| mul(&gradient, g)), dweight.map(|gradient| mul(&gradient, g))]
    });
    CrossEntropy { loss, ..sums }
}

/// Whole tiles of rows, as long as one fits.
fn rows_at_once(classes: usize) -> usize {
    const TILE: usize = 64;
    let rows = (LOGITS_BYTES / (4 * classes.max(1))).clamp(1, MOST_ROWS);
    if rows > TILE { rows - rows % TILE } else { rows }
}

fn accumulate(sum: &mut Option<Tensor>, term: Tensor) {
    *sum = Some(match sum.take() {
        Some(before) => add(&before, &term),
        None => term,
    });
}

fn joined(parts: &[Tensor]) -> Tensor {
    match parts {
        [one] => one.clone(),
        _ => cat(&parts.iter().collect::<Vec<_>>(), 0),
    }
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
    let ignored = |targets: &[u32]| {
        [Input::any([2, 2, 6]), Input::any([8, 6]), Input::given_indices([2, 2], targets)]
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn logits_of_a_large_vocabulary_stay_within_their_bytes() {
        for classes in [1, 50, 32_000, 49_152, 151_936, 262_144] {
            assert!(4 * classes * rows_at_once(classes) <= LOGITS_BYTES, "{classes} classes");
        }
        let device = Device::cpu();
        let (rows, width, classes) = (1024, 4, 40_000);
        let hidden = device.zeros([rows, width]).requiring_grad();
        let weight = device.zeros([classes, width]).requiring_grad();
        let targets = device.tensor_u32(&vec![7; rows], [rows]);
        device.flush().unwrap();
        device.reset_peak();
        let before = device.memory().in_use;
        // Held until they are measured, or nothing would be computed.
        let gradients = linear_cross_entropy(&hidden, &weight, &targets).loss.backward();
        device.flush().unwrap();
        let held = device.memory().peak - before;
        // Beside the logits: the weight's gradient, before and after it is scaled, and as much again of the inputs'.
        let rest = 4 * (2 * classes * width + 4 * rows * width + 3 * rows);
        assert!(held <= (LOGITS_BYTES + rest) as u64, "held {held} bytes");
        assert!(held > (LOGITS_BYTES / 2) as u64 && gradients.get(&weight).is_some(), "held only {held} bytes");
    }
}
