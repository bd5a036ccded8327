//! What tests of losses share: numbers in f64, held against those worked by hand.

use std::sync::LazyLock;

use wgtune_engine::{Device, Tensor, ops};

/// In f64.
pub static REFERENCE: LazyLock<Device> = LazyLock::new(Device::reference);

/// A tensor on the tape.
pub fn leaf(values: &[f32]) -> Tensor {
    REFERENCE.tensor(values, [values.len()]).requiring_grad()
}

fn of(x: &Tensor) -> Vec<f64> {
    x.to_vec_f64().unwrap()
}

/// Panics unless the numbers are these.
#[track_caller]
pub fn near(found: &Tensor, expected: &[f64]) {
    let found = of(found);
    // Factors are given in f32, whose own rounding is 6e-8.
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= 2e-7 * (1.0 + b.abs());
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(is_near), "{found:?}, expected {expected:?}");
}

/// Of the sum of a loss.
pub fn gradient(loss: &Tensor, leaf: &Tensor) -> Tensor {
    ops::sum(loss).backward().get(leaf).unwrap().clone()
}
