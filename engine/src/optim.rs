//! Optimisers: what turns gradients into steps.
//!
//! They update parameters in place and keep their state as tensors, to be saved and restored. Parameters move into a few larger
//! buffers, and gradients and state with them, so that a step takes as many dispatches for any number of parameters.
//!
//! ```
//! use wgtune_engine::optim::{AdamW, AdamWConfig};
//! use wgtune_engine::{Device, ops};
//!
//! let device = Device::cpu();
//! let x = device.tensor(&[3.0, -4.0], [2]).requiring_grad();
//! let mut optimizer = AdamW::new(AdamWConfig::default(), &[(&x, 0.0)]);
//! for _ in 0..200 {
//!     let gradients = ops::sum(&ops::square(&x)).backward();
//!     let gradient = gradients.get(&x).unwrap();
//!     let scale = ops::clip_scale(&ops::gradient_norm(&[gradient]), 1.0);
//!     optimizer.step(&[&x], &[gradient], 0.1, Some(&scale));
//! }
//! assert!(x.to_vec().unwrap().iter().all(|value| value.abs() < 1e-2));
//! ```

use crate::dtype::DType;
use crate::ops::{self, AdamWStep, SgdStep};
use crate::tensor::{Run, Tensor};

/// What stays the same over all steps of [`AdamW`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamWConfig {
    /// How much of the mean of the gradients is kept; 0.9.
    pub beta1: f64,
    /// How much of the mean of their squares is kept; 0.999.
    pub beta2: f64,
    /// Added to the divisor; 1e-8.
    pub eps: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101); see [`ops::adamw_`].
pub struct AdamW {
    config: AdamWConfig,
    steps: u64,
    weight_decays: Vec<f64>,
    moments: Vec<Moments>,
}

/// AdamW's state of one parameter, of the parameter's shape.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The running mean of the gradients.
    pub mean: Tensor,
    /// The running mean of their squares.
    pub square: Tensor,
}

impl AdamW {
    /// For these parameters, each with its weight decay (0 for none), before the first step.
    pub fn new(config: AdamWConfig, parameters: &[(&Tensor, f64)]) -> AdamW {
        let (parameters, weight_decays): (Vec<&Tensor>, Vec<f64>) = parameters.iter().copied().unzip();
        gather(&parameters, &weight_decays);
        let (means, squares) = (zeros_like(&parameters), zeros_like(&parameters));
        let moments = means.into_iter().zip(squares).map(|(mean, square)| Moments { mean, square }).collect();
        AdamW { config, steps: 0, weight_decays, moments }
    }

    /// Updates the parameters, given in the order of [`new`](Self::new), by their gradients times `scale` (one element, as of
    /// [`ops::clip_scale`]). If the scale is not finite, parameters and moments stay as they are; the step counts all the same.
    #[track_caller]
    pub fn step(&mut self, parameters: &[&Tensor], gradients: &[&Tensor], learning_rate: f64, scale: Option<&Tensor>) {
        check_counts(self.moments.len(), parameters, gradients);
        let Some(first) = parameters.first() else { return };
        self.steps += 1;
        let scale = scale.cloned().unwrap_or_else(|| ops::full(first.device(), 1.0, [1]));
        let AdamWConfig { beta1, beta2, eps } = self.config;
        let (means, squares): (Vec<&Tensor>, Vec<&Tensor>) = self.moments.iter().map(|x| (&x.mean, &x.square)).unzip();
        let decays = &self.weight_decays;
        for Run { members, joined } in
            Tensor::runs([parameters, gradients, &means, &squares], |before, at| decays[before] == decays[at])
        {
            let [parameter, gradient, mean, square] = joined;
            let step = AdamWStep { number: self.steps, learning_rate, beta1, beta2, eps, weight_decay: decays[members[0]] };
            ops::adamw_(&parameter, &mean, &square, &gradient, &scale, &step);
        }
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The state, a parameter each.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Continues from a state that was saved.
    #[track_caller]
    pub fn restore(&mut self, steps: u64, moments: Vec<Moments>) {
        let same = |(old, new): (&Moments, &Moments)| [&new.mean, &new.square].iter().all(|x| x.shape() == old.mean.shape());
        assert!(
            moments.len() == self.moments.len() && self.moments.iter().zip(&moments).all(same),
            "[restore] expected moments of the parameters' shapes, got {moments:?}"
        );
        self.steps = steps;
        for (own, saved) in self.moments.iter().zip(&moments) {
            ops::copy_into(&saved.mean.detach(), &own.mean);
            ops::copy_into(&saved.square.detach(), &own.square);
        }
    }
}

/// Moves parameters into a few larger buffers, those with equal weight decays together.
fn gather(parameters: &[&Tensor], weight_decays: &[f64]) {
    // A backward pass takes a whole buffer for gradients as soon as it has one of them, so a buffer is a share of all.
    const SHARE: usize = 8;
    const LEAST: usize = 4 << 20;
    let mut order: Vec<usize> = (0..parameters.len()).filter(|&at| parameters[at].can_move()).collect();
    order.sort_by(|&a, &b| weight_decays[a].total_cmp(&weight_decays[b]));
    let all: usize = order.iter().map(|&at| parameters[at].elements()).sum();
    let most = (all / SHARE).max(LEAST);
    let mut rest = &order[..];
    while let Some(&first) = rest.first() {
        let most = most.min(parameters[first].device().largest_tensor() / size_of::<f32>());
        let mut elements = 0;
        let fits = |at: &&usize| {
            elements += parameters[**at].elements();
            elements <= most
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (together, behind) = rest.split_at(count);
        move_together(&together.iter().map(|&at| parameters[at]).collect::<Vec<_>>());
        rest = behind;
    }
}

/// Zeros of the parameters' shapes, which lie together where those do.
fn zeros_like(parameters: &[&Tensor]) -> Vec<Tensor> {
    let zeros: Vec<Tensor> = parameters.iter().map(|x| x.device().zeros(x.shape())).collect();
    for run in Tensor::runs([parameters], |_, _| true) {
        move_together(&run.members.iter().map(|&at| &zeros[at]).collect::<Vec<_>>());
    }
    zeros
}

/// Moves tensors into one buffer, in this order. One alone stays where it is.
fn move_together(tensors: &[&Tensor]) {
    let [first, _, ..] = tensors else { return };
    let larger = first.device().empty([tensors.iter().map(|tensor| tensor.elements()).sum()], DType::F32);
    let mut start = 0;
    for tensor in tensors {
        tensor.move_into(&larger, start);
        start += tensor.elements();
    }
}

/// What stays the same over all steps of [`Sgd`].
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SgdConfig {
    /// How much of the velocity is kept.
    pub momentum: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
}

/// Stochastic gradient descent with momentum; see [`ops::sgd_`].
pub struct Sgd {
    config: SgdConfig,
    velocities: Vec<Tensor>,
}

impl Sgd {
    /// For these parameters, before the first step.
    pub fn new(config: SgdConfig, parameters: &[&Tensor]) -> Sgd {
        gather(parameters, &vec![0.0; parameters.len()]);
        Sgd { config, velocities: zeros_like(parameters) }
    }

    /// Updates the parameters, given in the order of [`new`](Self::new), by their gradients times `scale`, as
    /// [`AdamW::step`] does.
    #[track_caller]
    pub fn step(&mut self, parameters: &[&Tensor], gradients: &[&Tensor], learning_rate: f64, scale: Option<&Tensor>) {
        check_counts(self.velocities.len(), parameters, gradients);
        let Some(first) = parameters.first() else { return };
        let scale = scale.cloned().unwrap_or_else(|| ops::full(first.device(), 1.0, [1]));
        let step = SgdStep { learning_rate, momentum: self.config.momentum, weight_decay: self.config.weight_decay };
        let velocities: Vec<&Tensor> = self.velocities.iter().collect();
        for run in Tensor::runs([parameters, gradients, &velocities], |_, _| true) {
            let [parameter, gradient, velocity] = run.joined;
            ops::sgd_(&parameter, &velocity, &gradient, &scale, &step);
        }
    }

    /// The state, a parameter each, of its shape.
    pub fn velocities(&self) -> &[Tensor] {
        &self.velocities
    }
}

#[track_caller]
fn check_counts(expected: usize, parameters: &[&Tensor], gradients: &[&Tensor]) {
    assert!(
        parameters.len() == expected && gradients.len() == expected,
        "[step] expected {expected} parameters and gradients, got {} and {}",
        parameters.len(),
        gradients.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::passes::settle;
    use crate::testing::device_names;

    fn after(steps: std::ops::Range<u32>, optimizer: &mut AdamW, x: &Tensor) -> Vec<f32> {
        for step in steps {
            let gradient = x.device().tensor(&[0.5 + step as f32, -1.0], [2]);
            optimizer.step(&[x], &[&gradient], 0.1, None);
        }
        x.to_vec().unwrap()
    }

    #[test]
    fn a_restored_optimizer_continues_bit_for_bit() {
        let device = Device::cpu();
        let x = device.tensor(&[1.0, 2.0], [2]);
        let mut optimizer = AdamW::new(AdamWConfig::default(), &[(&x, 0.1)]);
        let half = after(0..3, &mut optimizer, &x);
        let saved: Vec<[Vec<f32>; 2]> =
            optimizer.moments().iter().map(|x| [&x.mean, &x.square].map(|x| x.to_vec().unwrap())).collect();
        let steps = optimizer.steps();
        let expected = after(3..6, &mut optimizer, &x);

        let y = device.tensor(&half, [2]);
        let mut resumed = AdamW::new(AdamWConfig::default(), &[(&y, 0.1)]);
        let tensor = |values: &[f32]| device.tensor(values, [2]);
        resumed.restore(steps, saved.iter().map(|[m, v]| Moments { mean: tensor(m), square: tensor(v) }).collect());
        assert_eq!(after(3..6, &mut resumed, &y), expected);
    }

    /// Gradients of a product of all the parameters' sums.
    fn loss(parameters: &[Tensor]) -> Tensor {
        parameters.iter().map(|x| ops::mean(&ops::square(x))).reduce(|a, b| ops::mul(&a, &b)).unwrap()
    }

    fn parameters(device: &Device, count: usize, size: usize) -> Vec<Tensor> {
        let values = |at: usize| (0..size).map(|i| 1.0 + (i + at) as f32 * 1e-3).collect::<Vec<_>>();
        (0..count).map(|at| device.tensor(&values(at), [size]).requiring_grad()).collect()
    }

    #[test]
    fn norm_and_step_take_as_many_dispatches_for_any_number_of_parameters() {
        let device = Device::cpu();
        let dispatches = |count: usize| {
            let parameters = parameters(&device, count, 128);
            let all: Vec<&Tensor> = parameters.iter().collect();
            let decayed: Vec<(&Tensor, f64)> = all.iter().enumerate().map(|(at, x)| (*x, (at % 2) as f64)).collect();
            let mut optimizer = AdamW::new(AdamWConfig::default(), &decayed);
            let loss = loss(&parameters);
            device.flush().unwrap();
            let gradients = loss.backward();
            let recorded = device.recorded();
            let settled = settle(recorded.clone(), |_| true).dispatches();
            assert_eq!(settled, recorded.dispatches() - count, "gradients are written where they stay");
            device.flush().unwrap();
            let gradients: Vec<&Tensor> = all.iter().map(|x| gradients.get(x).unwrap()).collect();
            let scale = ops::clip_scale(&ops::gradient_norm(&gradients), 1.0);
            optimizer.step(&all, &gradients, 0.1, Some(&scale));
            device.recorded().dispatches()
        };
        assert_eq!(dispatches(4), dispatches(40));
    }

    #[test]
    fn leaves_in_one_place_get_gradients_of_their_own() {
        let device = Device::cpu();
        let gathered = parameters(&device, 2, 64);
        AdamW::new(AdamWConfig::default(), &gathered.iter().map(|x| (x, 0.0)).collect::<Vec<_>>());
        let (first, again) = (&gathered[0], gathered[0].requiring_grad());
        let part = gathered[0].slice(0, 0..8).requiring_grad();
        let terms = [ops::sum(first), ops::scale(&ops::sum(&again), 2.0), ops::scale(&ops::sum(&part), 3.0)];
        let gradients = terms.into_iter().reduce(|a, b| ops::add(&a, &b)).unwrap().backward();
        let of = |leaf| gradients.get(leaf).unwrap().to_vec().unwrap();
        assert_eq!(of(first), [1.0; 64]);
        assert_eq!(of(&again), [2.0; 64]);
        assert_eq!(of(&part), [3.0; 8]);
    }

    #[test]
    fn gathered_parameters_get_the_bits_that_each_would_get_alone() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            // Sizes that are parts of a larger buffer and one that is not, gradients of two batches, and of one leaf twice.
            for size in [64, 192, 67] {
                let (gathered, alone) = (parameters(&device, 5, size), parameters(&device, 5, size));
                let tied = |x: &[Tensor]| ops::mul(&loss(x), &ops::mean(&x[2]));
                let mut optimizer = AdamW::new(AdamWConfig::default(), &gathered.iter().map(|x| (x, 0.1)).collect::<Vec<_>>());
                let state = || alone.iter().map(|x| device.zeros(x.shape())).collect::<Vec<_>>();
                let (means, squares) = (state(), state());
                for number in 1..4 {
                    let [ours, theirs] = [&gathered, &alone].map(|x| {
                        let mut gradients = tied(x).backward();
                        gradients.accumulate(loss(x).backward());
                        gradients
                    });
                    let all: Vec<&Tensor> = gathered.iter().collect();
                    optimizer.step(&all, &all.iter().map(|x| ours.get(x).unwrap()).collect::<Vec<_>>(), 0.1, None);
                    let AdamWConfig { beta1, beta2, eps } = AdamWConfig::default();
                    let step = AdamWStep { number, learning_rate: 0.1, beta1, beta2, eps, weight_decay: 0.1 };
                    for ((x, mean), square) in alone.iter().zip(&means).zip(&squares) {
                        ops::adamw_(x, mean, square, theirs.get(x).unwrap(), &ops::full(&device, 1.0, [1]), &step);
                    }
                }
                let values = |x: &[Tensor]| x.iter().map(|x| x.to_vec().unwrap()).collect::<Vec<_>>();
                assert_eq!(values(&gathered), values(&alone), "{size} on {device:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "[step] expected 1 parameters and gradients, got 1 and 0")]
    fn a_parameter_without_a_gradient_is_an_error() {
        let x = Device::cpu().tensor(&[1.0], [1]);
        Sgd::new(SgdConfig::default(), &[&x]).step(&[&x], &[], 0.1, None);
    }
}
