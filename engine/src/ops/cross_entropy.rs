//! The loss of a classifier: cross-entropy of logits and targets.

use bytemuck::{Pod, Zeroable};

use super::team::{self, Rows};
use super::{Op, add, copy, gather, log_softmax, mul, neg, sum, sum_axis};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Indices, Io, Kernel, Shader};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op =
    Op { name: "cross_entropy", kernels: &[AnyKernel::of::<Statistics>(), AnyKernel::of::<StatisticsAndGradient>()], cases };

/// The target of a row that does not count.
pub const IGNORE: u32 = u32::MAX;

/// What predictions are worth, summed over the rows that count: divide by their number for means. All are scalars.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// The sum of -ln p(target), in nats.
    pub loss: Tensor,
    /// The sum of the predictions' entropies -sum_v p_v ln p_v, in nats. Takes no gradient.
    pub entropy: Tensor,
    /// How many targets had the largest logit, the first of equals. Takes no gradient.
    pub correct: Tensor,
}

/// The cross-entropy of softmax(logits), logits [.., V], and targets [..] (u32, each below V or [`IGNORE`]).
///
/// Derivative of the loss, in the rows that count: softmax(logits) - onehot(target).
#[track_caller]
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> CrossEntropy {
    let rank = logits.rank();
    assert!(
        logits.dtype() == DType::F32
            && targets.dtype() == DType::U32
            && rank > 0
            && targets.shape()[..] == logits.shape()[..rank - 1],
        "[cross_entropy] expected f32 logits [.., V] and u32 targets [..], got {logits:?} and {targets:?}"
    );
    let (saved, targets) = (logits.detach().whole(), targets.whole());
    let sums = CrossEntropy::of_totals(&totals(&statistics(&saved, &targets, 0)));
    let loss = sums.loss.with_rule("cross_entropy", [logits], move |g, _| {
        let gradient = copy(&saved);
        statistics_and_gradient(&gradient, &targets, None, 0);
        [Some(mul(&gradient, g))]
    });
    CrossEntropy { loss, ..sums }
}

impl CrossEntropy {
    /// From the [`totals`].
    pub(super) fn of_totals(totals: &Tensor) -> CrossEntropy {
        let [loss, entropy, correct] = [0, 1, 2].map(|at| totals.slice(0, at..at + 1).reshape([]));
        CrossEntropy { loss, entropy, correct }
    }
}

/// The sums [3] of statistics [N, 3] over the rows: of parts, then of the parts' sums, so that few roundings add up in each.
pub(super) fn totals(statistics: &Tensor) -> Tensor {
    const PART: usize = 256;
    let rows = statistics.size(0);
    if rows <= PART {
        return sum_axis(statistics, 0);
    }
    let parts = rows / PART;
    let body = sum_axis(&statistics.slice(0, 0..parts * PART).reshape([parts, PART, 3]), 1);
    add(&totals(&body), &sum_axis(&statistics.slice(0, parts * PART..rows), 0))
}

/// Loss, entropy and correctness [N, 3] of rows of logits whose targets start at `first`.
pub(super) fn statistics(logits: &Tensor, targets: &Tensor, first: usize) -> Tensor {
    let params = Params::new(logits, first);
    let y = logits.device().empty([params.rows as usize, 3], DType::F32);
    dispatch::<Statistics>(params, &[logits, targets, &y]);
    y
}

/// The same, and in place of the logits their gradient, given that of the statistics of all targets, [.., 3]: of the losses and the
/// entropies. Without one, that of the sum of the losses.
pub(super) fn statistics_and_gradient(logits: &Tensor, targets: &Tensor, gradient: Option<&Tensor>, first: usize) -> Tensor {
    let params = Params { weighted: gradient.is_some().into(), ..Params::new(logits, first) };
    let y = logits.device().empty([params.rows as usize, 3], DType::F32);
    dispatch::<StatisticsAndGradient>(params, &[logits, targets, gradient.unwrap_or(targets), &y]);
    y
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    rows: u32,
    width: u32,
    first: u32,
    /// Whether there is a gradient of the statistics.
    weighted: u32,
}

impl Params {
    #[track_caller]
    fn new(logits: &Tensor, first: usize) -> Params {
        let width = logits.last_size();
        let rows = logits.shape()[..logits.rank() - 1].iter().product::<usize>();
        assert!(width > 0 || rows == 0, "[cross_entropy] expected logits to choose from, got {logits:?}");
        Params { rows: rows as u32, width: width as u32, first: first as u32, weighted: 0 }
    }

    fn cost(&self, passes: u64) -> Cost {
        let elements = u64::from(self.rows) * u64::from(self.width);
        Cost { flops: 6 * elements, bytes: 4 * passes * elements + 16 * u64::from(self.rows) }
    }

    /// The target of a row; `None` if the row does not count.
    fn target(&self, targets: &[u32], row: usize) -> Option<usize> {
        let target = targets[self.first as usize + row];
        (target != IGNORE).then_some(target as usize)
    }
}

impl Rows for Params {
    fn size(&self) -> [u32; 2] {
        [self.rows, self.width]
    }
}

struct Statistics;

impl Kernel for Statistics {
    type Params = Params;
    const NAME: &'static str = "cross_entropy";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &team::shaders("cross_entropy_scalars", "cross_entropy_vectors", "cross_entropy_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn indices(p: &Params) -> Option<Indices> {
        Some(Indices { binding: 1, below: p.width, or_none: true })
    }
    fn cost(p: &Params) -> Cost {
        p.cost(1)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (logits, targets, statistics, width) = (io.real(0), io.u32(1), io.real_mut(2), p.width as usize);
        parallel::rows(
            statistics,
            3,
            width,
            #[inline(always)]
            |first, _, chunk| {
                for (row, y) in chunk.chunks_exact_mut(3).enumerate() {
                    let Some(target) = p.target(targets, first + row) else {
                        y.fill(R::ZERO);
                        continue;
                    };
                    let x = &logits[(first + row) * width..][..width];
                    let mut partition = Partition::new(x, target);
                    let (blocks, rest) = x.as_chunks::<16>();
                    for block in blocks {
                        partition.take(&mut block.clone());
                    }
                    for &x in rest {
                        partition.take(&mut [x]);
                    }
                    y.copy_from_slice(&partition.statistics());
                }
            },
        );
    }
}

/// Logits, targets, the gradient of the statistics -> the gradient of the logits in their place, the statistics.
pub(super) struct StatisticsAndGradient;

impl Kernel for StatisticsAndGradient {
    type Params = Params;
    const NAME: &'static str = "cross_entropy_grad";
    const ACCESS: &'static [Access] = &[Access::Update, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &team::shaders("cross_entropy_grad_scalars", "cross_entropy_grad_vectors", "cross_entropy_grad_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn indices(p: &Params) -> Option<Indices> {
        Some(Indices { binding: 1, below: p.width, or_none: true })
    }
    fn cost(p: &Params) -> Cost {
        p.cost(2)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (logits, targets, statistics, width) = (io.real_mut(0), io.u32(1), io.real_mut(3), p.width as usize);
        let gradient = (p.weighted != 0).then(|| io.real(2));
        parallel::rows_of_two(
            (logits, width),
            (statistics, 3),
            4,
            #[inline(always)]
            |first, _, logits, statistics| {
                for (row, (x, y)) in logits.chunks_exact_mut(width).zip(statistics.chunks_exact_mut(3)).enumerate() {
                    let Some(target) = p.target(targets, first + row) else {
                        x.fill(R::ZERO);
                        y.fill(R::ZERO);
                        continue;
                    };
                    let mut partition = Partition::new(x, target);
                    let (blocks, rest) = x.as_chunks_mut::<16>();
                    for block in blocks {
                        partition.take(block);
                    }
                    partition.take(rest);
                    y.copy_from_slice(&partition.statistics());
                    let scale = R::ONE / partition.sum();
                    let of_row = |gradient: &[R]| [0, 1].map(|at| gradient[3 * (p.first as usize + first + row) + at]);
                    let [loss, entropy] = gradient.map_or([R::ONE, R::ZERO], of_row);
                    if entropy == R::ZERO {
                        x.iter_mut().for_each(|x| *x *= scale * loss);
                    } else {
                        // ln p + entropy is how far a logit is above their mean; what has rounded to nothing is as far as it may be.
                        let mean = partition.mean();
                        x.iter_mut()
                            .for_each(|x| *x *= scale * (loss - entropy * (x.max(R::from_f32(f32::MIN_POSITIVE)).ln() - mean)));
                    }
                    x[target] -= loss;
                }
            },
        );
    }
}

/// The softmax of one row on its way: sums over e^(x - largest x), in sixteen lanes that vector instructions can hold.
struct Partition<R> {
    largest: R,
    /// The target's logit less the largest.
    target: R,
    correct: R,
    /// Of e^(x - largest).
    sums: [R; 16],
    /// Of (x - largest) e^(x - largest).
    weighted: [R; 16],
}

impl<R: Real> Partition<R> {
    #[inline(always)]
    fn new(x: &[R], target: usize) -> Self {
        let largest = parallel::largest(x, x[0]);
        let correct = x[target] == largest && !x[..target].contains(&largest);
        Partition {
            largest,
            target: x[target] - largest,
            correct: if correct { R::ONE } else { R::ZERO },
            sums: [R::ZERO; 16],
            weighted: [R::ZERO; 16],
        }
    }

    /// Takes up to sixteen logits into the sums and leaves e^(x - largest) in their place.
    #[inline(always)]
    fn take(&mut self, block: &mut [R]) {
        for ((x, sum), weighted) in block.iter_mut().zip(&mut self.sums).zip(&mut self.weighted) {
            let distance = *x - self.largest;
            *x = distance.exp();
            *sum += *x;
            *weighted += distance * *x;
        }
    }

    fn sum(&self) -> R {
        self.sums.iter().fold(R::ZERO, |sum, &lane| sum + lane)
    }

    /// sum p x, for x less the largest.
    fn mean(&self) -> R {
        self.weighted.iter().fold(R::ZERO, |sum, &lane| sum + lane) / self.sum()
    }

    /// -ln p(target) = ln Z - x_target and -sum p ln p = ln Z - sum p x, for Z = sum e^x and x less the largest.
    fn statistics(&self) -> [R; 3] {
        [self.sum().ln() - self.target, self.sum().ln() - self.mean(), self.correct]
    }
}

/// The loss by primitives, where every row counts.
fn composed(logits: &Tensor, targets: &Tensor) -> Tensor {
    let width = logits.last_size();
    let identity: Vec<f32> = (0..width * width).map(|at| if at / width == at % width { 1.0 } else { 0.0 }).collect();
    let onehot = gather(&logits.device().tensor(&identity, [width, width]), targets);
    neg(&sum(&mul(&log_softmax(logits), &onehot)))
}

fn cases() -> Vec<Case> {
    let loss = |x: &[Tensor]| vec![cross_entropy(&x[0], &x[1]).loss];
    let all = |x: &[Tensor]| {
        let CrossEntropy { loss, entropy, correct } = cross_entropy(&x[0], &x[1]);
        vec![loss, entropy, correct]
    };
    let mut cases = Vec::new();
    for size in EDGES {
        if size > 0 {
            let inputs = [Input::any([3, size]), Input::indices([3], size as u32)];
            let case = Case::new(format!("cross_entropy of {size} classes"), inputs, loss).terms(size);
            cases.push(case.composed(|x| vec![composed(&x[0], &x[1])]));
            let inputs = [Input::fixed([5, size]), Input::indices([5], size as u32)];
            cases.push(Case::new(format!("cross_entropy's entropy of {size} classes"), inputs, all).terms(size));
        }
        let inputs = [Input::any([size, 7]), Input::indices([size], 7)];
        cases.push(Case::new(format!("cross_entropy of {size} rows"), inputs, loss).terms(size));
    }
    let ignored = |shape: [usize; 2], targets: &[u32]| [Input::any(shape), Input::given_indices([shape[0]], targets)];
    cases.push(Case::new("cross_entropy of ignored rows", ignored([4, 70], &[IGNORE, 3, IGNORE, 69]), loss).terms(70));
    cases.push(Case::new("cross_entropy of nothing but ignored rows", ignored([2, 5], &[IGNORE; 2]), loss));
    let ties = [Input::given([3, 3], &[1.0, 2.0, 2.0, 5.0, 5.0, 0.0, 4.0, 4.0, 4.0]), Input::given_indices([3], &[2, 0, 1])];
    cases.push(Case::new("cross_entropy of ties", ties, all).terms(3));
    let vocabulary = [Input::any([2, 70_000]), Input::indices([2], 70_000)];
    cases.push(Case::new("cross_entropy of a vocabulary", vocabulary, loss).terms(70_000).large());
    // Every 264 rows the same, so that the inputs are soon drawn.
    let many = [Input::any([1, 264, 65]), Input::indices([250, 264], 65)];
    let expanded = |x: &[Tensor]| vec![cross_entropy(&x[0].expand([250, 264, 65]), &x[1]).loss];
    cases.push(Case::new("cross_entropy past 65,535 workgroups", many, expanded).terms(66_000).large());
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::{argmax_axis, softmax};

    #[test]
    fn two_even_classes_are_worth_ln_2_and_the_first_of_equals_is_the_prediction() {
        let logits = Device::reference().tensor(&[0.0, 0.0, 3.0, 3.0, 9.0, 9.0], [3, 2]);
        let targets = logits.device().tensor_u32(&[0, 1, IGNORE], [3]);
        let result = cross_entropy(&logits, &targets);
        let got = [result.loss, result.entropy, result.correct].map(|x| x.to_vec_f64().unwrap()[0]);
        let expected = [2.0 * std::f64::consts::LN_2, 2.0 * std::f64::consts::LN_2, 1.0];
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-15), "{got:?}");
    }

    #[test]
    fn statistics_agree_with_softmax_and_argmax() {
        let device = Device::reference();
        let random = crate::random::Philox::new(1);
        let logits: Vec<f32> = (0..6 * 37).map(|at| random.normal(at)).collect();
        let logits = device.tensor(&logits, [6, 37]);
        let best = argmax_axis(&logits, 1).to_vec_u32().unwrap();
        let result = cross_entropy(&logits, &device.tensor_u32(&best, [6]));
        assert_eq!(result.correct.item().unwrap(), 6.0);
        let entropy = neg(&sum(&mul(&softmax(&logits), &log_softmax(&logits)))).to_vec_f64().unwrap()[0];
        assert!((result.entropy.to_vec_f64().unwrap()[0] / entropy - 1.0).abs() < 1e-12);
    }
}
