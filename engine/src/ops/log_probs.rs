//! Log-probabilities of a target sequence under the output projection, without ever holding all logits.

use super::cross_entropy::{StatisticsAndGradient, statistics, statistics_and_gradient};
use super::{
    Epilogue, IGNORE, Op, cast, cat, gather, linear, log_softmax, matmul_accumulate, matmul_with, mul, neg, scale, softmax,
    sum_axis,
};
use crate::dtype::DType;
use crate::kernel::AnyKernel;
use crate::tensor::Tensor;
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "log_probs", kernels: &[AnyKernel::of::<StatisticsAndGradient>()], cases };

/// The most that the logits held at once take.
const LOGITS_BYTES: usize = 64 << 20;
/// The most rows whose logits are held at once.
const MOST_ROWS: usize = 512;

/// What predictions are worth, target by target, each of the targets' shape. 0 where a target is [`IGNORE`].
#[derive(Clone, Debug)]
pub struct LogProbs {
    /// ln p(target), in nats.
    pub log_probs: Tensor,
    /// The prediction's entropy -sum_v p_v ln p_v, in nats.
    pub entropy: Tensor,
    /// 1 where the target had the largest logit, the first of equals. Takes no gradient.
    pub correct: Tensor,
}

/// The log-probabilities of targets [..] (u32, each below V or [`IGNORE`]) under p = softmax(hidden W^T / temperature), for hidden
/// [.., H] and a weight W [V, H] (f32, or frozen f16 or bf16), a few rows at a time: at most 64 MiB of logits exist at once.
///
/// Derivatives with respect to the logits over the temperature: onehot(target) - p of a log-probability, and -p (ln p + entropy) of an
/// entropy. What they are weighted by is known only when the gradient is asked for, so the logits are computed once more then:
/// [`linear_cross_entropy`](super::linear_cross_entropy), whose targets all weigh the same, is the faster one where the loss is a sum.
#[track_caller]
pub fn log_probs(hidden: &Tensor, weight: &Tensor, targets: &Tensor, temperature: f32) -> LogProbs {
    assert!(temperature.is_finite() && temperature > 0.0, "[log_probs] expected a temperature above 0, got {temperature}");
    let projection = Projection::new("log_probs", hidden, weight, targets, 1.0 / temperature);
    let statistics = projection.run(None, [false; 2]).statistics.with_rule("log_probs", [hidden, weight], move |g, needs| {
        let Pass { dhidden, dweight, .. } = projection.run(Some(&g.whole()), needs);
        [dhidden, dweight]
    });
    let [loss, entropy, correct] = [0, 1, 2].map(|at| statistics.slice(1, at..at + 1).reshape(targets.shape()));
    LogProbs { log_probs: neg(&loss), entropy, correct: correct.detach() }
}

/// Targets under an output projection, off the tape.
pub(super) struct Projection {
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    /// What logits are multiplied by.
    scale: f32,
}

/// What a pass over the logits leaves.
pub(super) struct Pass {
    /// Loss, entropy and correctness of each target, [N, 3].
    pub statistics: Tensor,
    /// The gradient with respect to hidden, of its shape.
    pub dhidden: Option<Tensor>,
    /// The gradient with respect to the weight.
    pub dweight: Option<Tensor>,
}

impl Projection {
    #[track_caller]
    pub fn new(op: &'static str, hidden: &Tensor, weight: &Tensor, targets: &Tensor, scale: f32) -> Projection {
        assert!(
            hidden.rank() > 0 && weight.rank() == 2 && weight.size(1) == hidden.last_size(),
            "[{op}] expected hidden [.., H] and a weight [V, H], got {hidden:?} and {weight:?}"
        );
        assert!(
            targets.dtype() == DType::U32 && targets.shape()[..] == hidden.shape()[..hidden.rank() - 1],
            "[{op}] expected u32 targets for each row of {hidden:?}, got {targets:?}"
        );
        Projection { hidden: hidden.detach(), weight: weight.detach(), targets: targets.whole(), scale }
    }

    /// Goes through the logits a few rows at a time, with the gradients that are wanted, of hidden and of the weight: dlogits in
    /// place of the logits, dhidden = scale dlogits W and dW = scale dlogits^T hidden. `gradient` is that of the statistics; without
    /// one, every loss's is 1 and the others' are 0.
    pub fn run(&self, gradient: Option<&Tensor>, [for_hidden, for_weight]: [bool; 2]) -> Pass {
        let Projection { hidden, weight, targets, scale } = self;
        let (rows, at_once) = (targets.elements(), rows_at_once(weight.size(0)));
        let inputs = hidden.reshape([rows, hidden.last_size()]);
        let epilogue = Epilogue { scale: *scale, ..Epilogue::default() };
        let (mut all, mut dhidden, mut dweight) = (Vec::new(), Vec::new(), None);
        for first in (0..rows.max(1)).step_by(at_once) {
            let inputs = inputs.slice(0, first..(first + at_once).min(rows));
            let logits = matmul_with(&inputs, &weight.transpose(), &epilogue);
            if !for_hidden && !for_weight {
                all.push(statistics(&logits, targets, first));
                continue;
            }
            all.push(statistics_and_gradient(&logits, targets, gradient, first));
            if for_hidden {
                dhidden.push(matmul_with(&logits, weight, &epilogue));
            }
            if for_weight {
                match &dweight {
                    Some(sum) => matmul_accumulate(sum, &logits.transpose(), &inputs, *scale),
                    None => dweight = Some(matmul_with(&logits.transpose(), &inputs, &epilogue)),
                }
            }
        }
        let dhidden = for_hidden.then(|| joined(&dhidden).reshape(hidden.shape()));
        Pass { statistics: joined(&all), dhidden, dweight }
    }
}

/// Whole tiles of rows, as long as one fits.
fn rows_at_once(classes: usize) -> usize {
    const TILE: usize = 64;
    let rows = (LOGITS_BYTES / (4 * classes.max(1))).clamp(1, MOST_ROWS);
    if rows > TILE { rows - rows % TILE } else { rows }
}

fn joined(parts: &[Tensor]) -> Tensor {
    match parts {
        [one] => one.clone(),
        _ => cat(&parts.iter().collect::<Vec<_>>(), 0),
    }
}

/// Log-probabilities and entropies by primitives, where every target counts.
fn composed(hidden: &Tensor, weight: &Tensor, targets: &Tensor, temperature: f32) -> Vec<Tensor> {
    let logits = scale(&linear(hidden, weight), 1.0 / temperature);
    let (classes, axis) = (weight.size(0), logits.rank() - 1);
    let identity: Vec<f32> = (0..classes * classes).map(|at| if at / classes == at % classes { 1.0 } else { 0.0 }).collect();
    let onehot = gather(&logits.device().tensor(&identity, [classes, classes]), targets);
    let logs = log_softmax(&logits);
    vec![sum_axis(&mul(&logs, &onehot), axis), neg(&sum_axis(&mul(&softmax(&logits), &logs), axis))]
}

fn cases() -> Vec<Case> {
    fn both(x: &[Tensor], temperature: f32) -> Vec<Tensor> {
        let LogProbs { log_probs, entropy, .. } = log_probs(&x[0], &x[1], &x[2], temperature);
        vec![log_probs, entropy]
    }
    let mut cases = Vec::new();
    for ([rows, width, classes], temperature) in
        [([0, 4, 5], 1.0), ([1, 3, 2], 0.5), ([5, 64, 65], 1.0), ([64, 16, 257], 2.0), ([1100, 6, 9], 0.7)]
    {
        let inputs = [Input::any([rows, width]), Input::any([classes, width]), Input::indices([rows], classes as u32)];
        let case = Case::new(format!("log_probs {rows}x{width}x{classes}"), inputs, move |x| both(x, temperature));
        cases.push(case.terms(rows.max(width * classes)).composed(move |x| composed(&x[0], &x[1], &x[2], temperature)));
    }
    let ignored = |targets: &[u32]| [Input::any([2, 2, 6]), Input::any([8, 6]), Input::given_indices([2, 2], targets)];
    let case = Case::new("log_probs of ignored rows", ignored(&[IGNORE, 7, 0, IGNORE]), |x| both(x, 1.0));
    cases.push(case.terms(48));
    cases.push(Case::new("log_probs of nothing but ignored rows", ignored(&[IGNORE; 4]), |x| both(x, 1.0)));
    let case = Case::new("log_probs without the entropies", ignored(&[5, 7, 0, 1]), |x| both(x, 1.0)[..1].to_vec());
    cases.push(case.terms(48).composed(|x| composed(&x[0], &x[1], &x[2], 1.0)[..1].to_vec()));
    let case = Case::new("log_probs' entropies alone", ignored(&[5, 7, IGNORE, 1]), |x| both(x, 1.0)[1..].to_vec());
    cases.push(case.terms(48));
    for dtype in [DType::F16, DType::BF16] {
        let inputs = [Input::any([5, 8]), Input::fixed([9, 8]), Input::indices([5], 9)];
        let case = Case::new(format!("log_probs with a frozen {dtype} weight"), inputs, move |x| {
            both(&[x[0].clone(), cast(&x[1], dtype), x[2].clone()], 1.0)
        });
        cases.push(case.terms(72));
    }
    let frozen = [Input::fixed([600, 8]), Input::any([9, 8]), Input::indices([600], 9)];
    cases.push(Case::new("log_probs of frozen inputs", frozen, |x| both(x, 1.0)).terms(600));
    let evaluated = [Input::fixed([600, 8]), Input::fixed([9, 8]), Input::indices([600], 9)];
    let all = |x: &[Tensor]| {
        let LogProbs { log_probs, entropy, correct } = log_probs(&x[0], &x[1], &x[2], 1.0);
        vec![log_probs, entropy, correct]
    };
    cases.push(Case::new("log_probs without a gradient", evaluated, all).terms(72));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, ops};

    #[test]
    fn a_temperature_evens_out_what_is_predicted_and_an_ignored_target_is_worth_nothing() {
        let device = Device::reference();
        // Logits of ln 9 and 0; at a temperature of 2, of ln 3 and 0.
        let (hidden, weight) = (device.tensor(&[1.0; 3], [3, 1]), device.tensor(&[9f32.ln(), 0.0], [2, 1]));
        let result = log_probs(&hidden, &weight, &device.tensor_u32(&[0, 1, IGNORE], [3]), 2.0);
        let expected = [[0.75f64.ln(), 0.25f64.ln(), 0.0], [-0.75 * 0.75f64.ln() - 0.25 * 0.25f64.ln(); 3], [1.0, 0.0, 0.0]];
        for (got, expected) in [result.log_probs, result.entropy, result.correct].iter().zip(expected) {
            let got = got.to_vec_f64().unwrap();
            // ln 9 is rounded to f32.
            assert!(got[..2].iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-7), "{got:?}");
            assert_eq!(got[2], 0.0);
        }
    }

    #[test]
    fn their_sum_is_the_loss_and_so_are_its_gradients() {
        let device = Device::reference();
        let random = crate::random::Philox::new(2);
        let values = |count: u64| (0..count).map(|at| random.normal(at)).collect::<Vec<f32>>();
        let hidden = device.tensor(&values(700 * 4), [700, 4]).requiring_grad();
        let weight = device.tensor(&values(5 * 4), [5, 4]).requiring_grad();
        let targets: Vec<u32> = (0..700).map(|at| if at % 7 == 0 { IGNORE } else { at % 5 }).collect();
        let targets = device.tensor_u32(&targets, [700]);
        let sum = neg(&ops::sum(&log_probs(&hidden, &weight, &targets, 1.0).log_probs));
        let loss = ops::linear_cross_entropy(&hidden, &weight, &targets).loss;
        let (of_sum, of_loss) = (sum.backward(), loss.backward());
        let mut pairs = vec![[sum, loss]];
        pairs.extend([&hidden, &weight].map(|leaf| [&of_sum, &of_loss].map(|gradients| gradients.get(leaf).unwrap().clone())));
        for pair in pairs {
            let [got, expected] = pair.map(|tensor| tensor.to_vec_f64().unwrap());
            assert!(got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() < 1e-10), "{got:?} {expected:?}");
        }
    }

    #[test]
    fn logits_of_a_large_vocabulary_stay_within_their_bytes() {
        for classes in [1, 50, 32_000, 49_152, 151_936, 262_144] {
            assert!(4 * classes * rows_at_once(classes) <= LOGITS_BYTES, "{classes} classes");
        }
        let device = Device::cpu();
        let (rows, width, classes) = (1024, 4, 40_000);
        let targets = device.tensor_u32(&vec![7; rows], [rows]);
        let loss_at_once = |hidden: &Tensor, weight: &Tensor| ops::linear_cross_entropy(hidden, weight, &targets).loss;
        let loss_of_each = |hidden: &Tensor, weight: &Tensor| ops::sum(&log_probs(hidden, weight, &targets, 1.0).log_probs);
        for loss in [&loss_at_once as &dyn Fn(&Tensor, &Tensor) -> Tensor, &loss_of_each] {
            let hidden = device.zeros([rows, width]).requiring_grad();
            let weight = device.zeros([classes, width]).requiring_grad();
            device.flush().unwrap();
            device.reset_peak();
            let before = device.memory().in_use;
            // Held until they are measured, or nothing would be computed.
            let gradients = loss(&hidden, &weight).backward();
            device.flush().unwrap();
            let held = device.memory().peak - before;
            // Beside the logits: the weight's gradient, before and after it is scaled, and as much again of the inputs'; the
            // statistics and their gradient, in parts and joined.
            let rest = 4 * (2 * classes * width + 4 * rows * width + 12 * rows);
            assert!(held <= (LOGITS_BYTES + rest) as u64, "held {held} bytes");
            assert!(held > (LOGITS_BYTES / 2) as u64 && gradients.get(&weight).is_some(), "held only {held} bytes");
        }
    }
}
