//! Optimisers: what turns gradients into steps.
//!
//! They update parameters in place and keep their state as tensors, to be saved and restored. A step is taken by the gradients of all
//! [`Parameters`], which lie in a few larger buffers, so it takes as many dispatches for any number of parameters.
//!
//! ```
//! use wgtune_engine::optim::{AdamW, AdamWConfig, Parameter, Parameters};
//! use wgtune_engine::{Device, ops};
//!
//! let device = Device::cpu();
//! let x = device.tensor(&[3.0, -4.0], [2]).requiring_grad();
//! let parameters = Parameters::gather([Parameter { name: "x".into(), tensor: x.clone(), weight_decay: 0.0, rate: 1.0 }]);
//! let mut optimizer = AdamW::new(AdamWConfig::default(), &parameters);
//! for _ in 0..200 {
//!     let gradients = parameters.gradients(&ops::sum(&ops::square(&x)).backward()).unwrap();
//!     let scale = ops::clip_scale(&gradients.norm(), 1.0);
//!     optimizer.step(&parameters, &gradients, 0.1, Some(&scale));
//! }
//! assert!(x.to_vec().unwrap().iter().all(|value| value.abs() < 1e-2));
//! ```

mod parameters;

pub use parameters::{Flats, Parameter, Parameters};

use crate::ops::{self, AdamWStep, SgdStep};
use crate::tensor::Tensor;

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
    means: Flats,
    squares: Flats,
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
    /// For these parameters, before the first step.
    pub fn new(config: AdamWConfig, parameters: &Parameters) -> AdamW {
        AdamW { config, steps: 0, means: parameters.zeros(), squares: parameters.zeros() }
    }

    /// Updates the parameters that it was made for by their gradients times `scale` (one element, as of [`ops::clip_scale`]). If the
    /// scale is not finite, parameters and moments stay as they are; the step counts all the same.
    #[track_caller]
    pub fn step(&mut self, parameters: &Parameters, gradients: &Flats, learning_rate: f64, scale: Option<&Tensor>) {
        parameters.check([&self.means, &self.squares, gradients]);
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps } = self.config;
        for (at, (parameter, weight_decay, rate)) in parameters.flats().enumerate() {
            let learning_rate = learning_rate * rate;
            let step = AdamWStep { number: self.steps, learning_rate, beta1, beta2, eps, weight_decay };
            let [mean, square, gradient] = [&self.means, &self.squares, gradients].map(|flats| &flats.0[at]);
            ops::adamw_(parameter, mean, square, gradient, &scale_or_one(scale, parameter), &step);
        }
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The state, a parameter each.
    pub fn moments(&self, parameters: &Parameters) -> Vec<Moments> {
        let pieces = parameters.pieces(&self.means).into_iter().zip(parameters.pieces(&self.squares));
        pieces.map(|(mean, square)| Moments { mean, square }).collect()
    }

    /// Continues from a state that was saved, a parameter each.
    #[track_caller]
    pub fn restore(&mut self, parameters: &Parameters, steps: u64, moments: &[Moments]) {
        let own = self.moments(parameters);
        let same = |(old, new): (&Moments, &Moments)| [&new.mean, &new.square].iter().all(|x| x.shape() == old.mean.shape());
        assert!(
            moments.len() == own.len() && own.iter().zip(moments).all(same),
            "[restore] expected moments of the parameters' shapes, got {moments:?}"
        );
        self.steps = steps;
        for (own, saved) in own.iter().zip(moments) {
            ops::copy_into(&saved.mean.detach(), &own.mean);
            ops::copy_into(&saved.square.detach(), &own.square);
        }
    }
}

fn scale_or_one(scale: Option<&Tensor>, parameter: &Tensor) -> Tensor {
    scale.cloned().unwrap_or_else(|| ops::full(parameter.device(), 1.0, [1]))
}

/// Stochastic gradient descent with momentum; see [`ops::sgd_`].
pub struct Sgd {
    momentum: f64,
    velocities: Flats,
}

impl Sgd {
    /// For these parameters, before the first step; so much of the velocity is kept at each.
    pub fn new(momentum: f64, parameters: &Parameters) -> Sgd {
        Sgd { momentum, velocities: parameters.zeros() }
    }

    /// Updates the parameters that it was made for by their gradients times `scale`, as [`AdamW::step`] does.
    #[track_caller]
    pub fn step(&mut self, parameters: &Parameters, gradients: &Flats, learning_rate: f64, scale: Option<&Tensor>) {
        parameters.check([&self.velocities, gradients]);
        for (at, (parameter, weight_decay, rate)) in parameters.flats().enumerate() {
            let learning_rate = learning_rate * rate;
            let step = SgdStep { learning_rate, momentum: self.momentum, weight_decay };
            let [velocity, gradient] = [&self.velocities, gradients].map(|flats| &flats.0[at]);
            ops::sgd_(parameter, velocity, gradient, &scale_or_one(scale, parameter), &step);
        }
    }

    /// The state, a parameter each, of its shape.
    pub fn velocities(&self, parameters: &Parameters) -> Vec<Tensor> {
        parameters.pieces(&self.velocities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::passes::settle;
    use crate::testing::device_names;

    fn gathered(tensors: &[Tensor], weight_decay: impl Fn(usize) -> f64) -> Parameters {
        let parameter = |(at, tensor): (usize, &Tensor)| Parameter {
            name: format!("{at}"),
            tensor: tensor.clone(),
            weight_decay: weight_decay(at),
            rate: 1.0,
        };
        Parameters::gather(tensors.iter().enumerate().map(parameter))
    }

    fn after(steps: std::ops::Range<u32>, optimizer: &mut AdamW, parameters: &Parameters) -> Vec<f32> {
        let x = &parameters.all()[0].tensor;
        for step in steps {
            let gradient = x.device().tensor(&[0.5 + step as f32, -1.0], [2]);
            optimizer.step(parameters, &parameters.joined(&[&gradient]), 0.1, None);
        }
        x.to_vec().unwrap()
    }

    #[test]
    fn a_restored_optimizer_continues_bit_for_bit() {
        let device = Device::cpu();
        let x = gathered(&[device.tensor(&[1.0, 2.0], [2])], |_| 0.1);
        let mut optimizer = AdamW::new(AdamWConfig::default(), &x);
        let half = after(0..3, &mut optimizer, &x);
        let saved: Vec<[Vec<f32>; 2]> =
            optimizer.moments(&x).iter().map(|x| [&x.mean, &x.square].map(|x| x.to_vec().unwrap())).collect();
        let steps = optimizer.steps();
        let expected = after(3..6, &mut optimizer, &x);

        let y = gathered(&[device.tensor(&half, [2])], |_| 0.1);
        let mut resumed = AdamW::new(AdamWConfig::default(), &y);
        let tensor = |values: &[f32]| device.tensor(values, [2]);
        let saved: Vec<Moments> = saved.iter().map(|[m, v]| Moments { mean: tensor(m), square: tensor(v) }).collect();
        resumed.restore(&y, steps, &saved);
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
            let tensors = parameters(&device, count, 128);
            let parameters = gathered(&tensors, |at| (at % 2) as f64);
            let mut optimizer = AdamW::new(AdamWConfig::default(), &parameters);
            let loss = loss(&tensors);
            device.flush().unwrap();
            let gradients = loss.backward();
            let recorded = device.recorded();
            let settled = settle(recorded.clone(), |_| true).dispatches();
            assert_eq!(settled, recorded.dispatches() - count, "gradients are written where they stay");
            device.flush().unwrap();
            let gradients = parameters.gradients(&gradients).unwrap();
            let scale = ops::clip_scale(&gradients.norm(), 1.0);
            optimizer.step(&parameters, &gradients, 0.1, Some(&scale));
            device.recorded().dispatches()
        };
        assert_eq!(dispatches(4), dispatches(40));
    }

    #[test]
    fn leaves_in_one_place_get_gradients_of_their_own() {
        let device = Device::cpu();
        let tensors = parameters(&device, 2, 64);
        let parameters = gathered(&tensors, |_| 0.0);
        let (first, again) = (&tensors[0], tensors[0].requiring_grad());
        let part = tensors[0].slice(0, 0..8).requiring_grad();
        let terms = [ops::sum(first), ops::scale(&ops::sum(&again), 2.0), ops::scale(&ops::sum(&part), 3.0)];
        let gradients = terms.into_iter().reduce(|a, b| ops::add(&a, &b)).unwrap().backward();
        let of = |leaf| gradients.get(leaf).unwrap().to_vec().unwrap();
        assert_eq!(of(first), [1.0; 64]);
        assert_eq!(of(&again), [2.0; 64]);
        assert_eq!(of(&part), [3.0; 8]);
        let missing = |gradients| parameters.gradients(gradients).map(drop);
        assert_eq!(missing(&gradients), Err("1".into()), "no term reaches the second");
    }

    #[test]
    fn gathered_parameters_get_the_bits_that_each_would_get_alone() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            // Sizes that are parts of a larger buffer and one that is not, gradients of two batches, and of one leaf twice.
            for size in [64, 192, 67] {
                let (together, alone) = (parameters(&device, 5, size), parameters(&device, 5, size));
                let tied = |x: &[Tensor]| ops::mul(&loss(x), &ops::mean(&x[2]));
                let parameters = gathered(&together, |_| 0.1);
                let mut optimizer = AdamW::new(AdamWConfig::default(), &parameters);
                let state = || alone.iter().map(|x| device.zeros(x.shape())).collect::<Vec<_>>();
                let (means, squares) = (state(), state());
                for number in 1..4 {
                    let [ours, theirs] = [&together, &alone].map(|x| {
                        let mut gradients = tied(x).backward();
                        gradients.accumulate(loss(x).backward());
                        gradients
                    });
                    optimizer.step(&parameters, &parameters.gradients(&ours).unwrap(), 0.1, None);
                    let AdamWConfig { beta1, beta2, eps } = AdamWConfig::default();
                    let step = AdamWStep { number, learning_rate: 0.1, beta1, beta2, eps, weight_decay: 0.1 };
                    for ((x, mean), square) in alone.iter().zip(&means).zip(&squares) {
                        ops::adamw_(x, mean, square, theirs.get(x).unwrap(), &ops::full(&device, 1.0, [1]), &step);
                    }
                }
                let values = |x: &[Tensor]| x.iter().map(|x| x.to_vec().unwrap()).collect::<Vec<_>>();
                assert_eq!(values(&together), values(&alone), "{size} on {device:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "[step] expected flats of these parameters")]
    fn gradients_of_other_parameters_are_an_error() {
        let parameters = |size: usize| gathered(&[Device::cpu().zeros([size])], |_| 0.0);
        Sgd::new(0.0, &parameters(3)).step(&parameters(3), &parameters(4).zeros(), 0.1, None);
    }
}
