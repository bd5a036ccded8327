//! The laws that every op obeys, and the cases they are run on. Tests, benches and the reference page share them.

mod case;
mod input;
mod laws;
mod truth;

use crate::ops;
use crate::random::Philox;
use crate::tensor::Tensor;
pub use case::Case;
pub use input::{Draw, Input};
pub use laws::{LAWS, Law, Subject, Trial, trials};
use truth::Truth;

/// [`ops::attention`] over so many parts of the keys, and its gradients of keys and values over so many parts of the queries: what a GPU
/// does where there would be too little work for it.
pub fn attention_in_parts(query: &Tensor, key: &Tensor, value: &Tensor, mask: &ops::Mask, parts: [u32; 2]) -> Tensor {
    ops::attention_in_parts(query, key, value, mask, 1.0 / (query.last_size() as f32).sqrt(), parts)
}

/// Sizes at which a kernel's edges lie: nothing, one, and either side of a subgroup, a workgroup and a tile.
pub const EDGES: [usize; 8] = [0, 1, 63, 64, 65, 255, 256, 257];

/// The devices that unit tests go through: a GPU where there is an adapter.
#[cfg(test)]
pub(crate) fn device_names() -> impl Iterator<Item = &'static str> {
    let gpu = (!crate::device::adapters().is_empty()).then_some("gpu");
    ["cpu", "reference"].into_iter().chain(gpu)
}

/// The differentiable outputs times fixed random weights, summed.
fn weighted(outputs: &[Tensor], draw: Draw) -> Option<Tensor> {
    let terms = outputs.iter().enumerate().filter(|(_, output)| output.dtype() == crate::DType::F32).map(|(at, output)| {
        let random = Philox::new(500 + at as u64);
        let weights: Vec<f32> = (0..output.elements() as u64).map(|i| random.normal(i)).collect();
        let weights = draw.nudge(weights, 500 + at as u64);
        ops::sum(&ops::mul(output, &output.device().tensor(&weights, output.shape())))
    });
    terms.reduce(|sum, term| ops::add(&sum, &term))
}

pub(crate) fn backward(outputs: &[Tensor], draw: Draw) -> Option<crate::Gradients> {
    weighted(outputs, draw).filter(Tensor::requires_grad).map(|loss| loss.backward())
}

fn read(tensor: &Tensor) -> Result<Vec<f64>, String> {
    let values = match tensor.dtype() {
        crate::DType::U32 => tensor.to_vec_u32().map(|values| values.into_iter().map(f64::from).collect()),
        _ => tensor.to_vec_f64(),
    };
    values.map_err(|error| error.to_string())
}
