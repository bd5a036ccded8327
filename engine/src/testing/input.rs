//! Inputs of cases, and how their numbers are drawn.

use super::truth::NUDGE;
use crate::device::Device;
use crate::random::Philox;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// How a case's numbers are drawn.
#[derive(Clone, Copy, Debug)]
pub enum Draw {
    /// As its inputs say.
    Plain,
    /// Those of any size are +-1e4.
    Extreme,
    /// As its inputs say, each moved by a random share of itself; the number keys how.
    Nudged(u64),
}

impl Draw {
    /// The numbers of one tensor, nudged where they are to be.
    pub(super) fn nudge(self, values: Vec<f32>, key: u64) -> Vec<f32> {
        let Draw::Nudged(nudge) = self else { return values };
        let random = Philox::new(10_000 * (nudge + 1) + key);
        let share = |at: usize| 1.0 + NUDGE as f32 * random.normal(at as u64);
        values.into_iter().enumerate().map(|(at, value)| if value.is_finite() { value * share(at) } else { value }).collect()
    }
}

/// One input of a case.
pub struct Input {
    shape: Shape,
    values: Values,
}

enum Values {
    /// Standard normal; +-1e4 for the law of finite results.
    Any,
    /// Uniform in -3..3, for functions that overflow.
    Small,
    /// Uniform in 0.5..3.
    Positive,
    /// Small whole numbers, no gradient.
    Fixed,
    Given(Vec<f32>),
    Indices(u32),
    GivenIndices(Vec<u32>),
}

impl Input {
    /// Numbers of any size.
    pub fn any(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Any }
    }

    /// Numbers in -3..3.
    pub fn small(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Small }
    }

    /// Numbers in 0.5..3.
    pub fn positive(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Positive }
    }

    /// Multiples of 1/4 in -2..2, exact in every storage type, that take no gradient.
    pub fn fixed(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Fixed }
    }

    /// These numbers, which take no gradient.
    pub fn given(shape: impl Into<Shape>, values: &[f32]) -> Input {
        Input { shape: shape.into(), values: Values::Given(values.to_vec()) }
    }

    /// u32 below a bound.
    pub fn indices(shape: impl Into<Shape>, below: u32) -> Input {
        Input { shape: shape.into(), values: Values::Indices(below) }
    }

    /// These u32.
    pub fn given_indices(shape: impl Into<Shape>, values: &[u32]) -> Input {
        Input { shape: shape.into(), values: Values::GivenIndices(values.to_vec()) }
    }

    pub(super) fn tensor(&self, device: &Device, key: u64, draw: Draw) -> Tensor {
        let count = self.shape.elements();
        let random = Philox::new(key);
        let uniform = || (0..count as u64).map(|i| random.uniform(i));
        let floats = |values: Vec<f32>| device.tensor(&draw.nudge(values, key), self.shape);
        match &self.values {
            Values::Any if matches!(draw, Draw::Extreme) => {
                floats(uniform().map(|u| if u < 0.5 { -1e4 } else { 1e4 }).collect()).requiring_grad()
            }
            Values::Any => floats((0..count as u64).map(|i| random.normal(i)).collect()).requiring_grad(),
            Values::Small => floats(uniform().map(|u| 6.0 * u - 3.0).collect()).requiring_grad(),
            Values::Positive => floats(uniform().map(|u| 0.5 + 2.5 * u).collect()).requiring_grad(),
            Values::Fixed => floats(uniform().map(|u| (u * 16.0).floor() / 4.0 - 2.0).collect()),
            Values::Given(values) => floats(values.clone()),
            Values::Indices(below) => {
                let values: Vec<u32> = uniform().map(|u| (u * *below as f32) as u32).collect();
                device.tensor_u32(&values, self.shape)
            }
            Values::GivenIndices(values) => device.tensor_u32(values, self.shape),
        }
    }
}
