//! Optimisers: what turns gradients into steps.
//!
//! They update parameters in place, one kernel a parameter, and keep their state as tensors, to be saved and restored.
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
        let zeros = |parameter: &Tensor| parameter.device().zeros(parameter.shape());
        AdamW {
            config,
            steps: 0,
            weight_decays: parameters.iter().map(|(_, weight_decay)| *weight_decay).collect(),
            moments: parameters.iter().map(|(x, _)| Moments { mean: zeros(x), square: zeros(x) }).collect(),
        }
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
        for (at, moments) in self.moments.iter().enumerate() {
            let weight_decay = self.weight_decays[at];
            let step = AdamWStep { number: self.steps, learning_rate, beta1, beta2, eps, weight_decay };
            ops::adamw_(parameters[at], &moments.mean, &moments.square, gradients[at], &scale, &step);
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

    /// Continues from a state that was saved. It becomes the optimiser's own, and will be overwritten.
    #[track_caller]
    pub fn restore(&mut self, steps: u64, moments: Vec<Moments>) {
        let same = |(old, new): (&Moments, &Moments)| [&new.mean, &new.square].iter().all(|x| x.shape() == old.mean.shape());
        assert!(
            moments.len() == self.moments.len() && self.moments.iter().zip(&moments).all(same),
            "[restore] expected moments of the parameters' shapes, got {moments:?}"
        );
        let whole = |x: &Tensor| x.detach().whole();
        self.steps = steps;
        self.moments = moments.iter().map(|x| Moments { mean: whole(&x.mean), square: whole(&x.square) }).collect();
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
        Sgd { config, velocities: parameters.iter().map(|x| x.device().zeros(x.shape())).collect() }
    }

    /// Updates the parameters, given in the order of [`new`](Self::new), by their gradients times `scale`, as
    /// [`AdamW::step`] does.
    #[track_caller]
    pub fn step(&mut self, parameters: &[&Tensor], gradients: &[&Tensor], learning_rate: f64, scale: Option<&Tensor>) {
        check_counts(self.velocities.len(), parameters, gradients);
        let Some(first) = parameters.first() else { return };
        let scale = scale.cloned().unwrap_or_else(|| ops::full(first.device(), 1.0, [1]));
        let step = SgdStep { learning_rate, momentum: self.config.momentum, weight_decay: self.config.weight_decay };
        for ((parameter, gradient), velocity) in parameters.iter().zip(gradients).zip(&self.velocities) {
            ops::sgd_(parameter, velocity, gradient, &scale, &step);
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

    #[test]
    #[should_panic(expected = "[step] expected 1 parameters and gradients, got 1 and 0")]
    fn a_parameter_without_a_gradient_is_an_error() {
        let x = Device::cpu().tensor(&[1.0], [1]);
        Sgd::new(SgdConfig::default(), &[&x]).step(&[&x], &[], 0.1, None);
    }
}
