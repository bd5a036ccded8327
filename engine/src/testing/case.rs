//! A case: inputs for an op, and what it comes to.

use std::sync::OnceLock;

use super::{Draw, Input, Truth, backward, read};
use crate::device::Device;
use crate::tensor::Tensor;

/// Runs an op.
pub(super) type Function = Box<dyn Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync>;

/// One set of inputs for an op, and how to call it.
pub struct Case {
    /// What is special about it.
    pub name: String,
    inputs: Vec<Input>,
    pub(super) run: Function,
    terms: usize,
    pub(super) cancels: bool,
    pub(super) large: bool,
    pub(super) composed: Option<Function>,
    truth: OnceLock<Result<Truth, String>>,
}

impl Case {
    /// A case that calls `run` on tensors of these inputs.
    pub fn new<const N: usize>(
        name: impl Into<String>,
        inputs: [Input; N],
        run: impl Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync + 'static,
    ) -> Case {
        Case {
            name: name.into(),
            inputs: inputs.into(),
            run: Box::new(run),
            terms: 1,
            cancels: false,
            large: false,
            composed: None,
            truth: OnceLock::new(),
        }
    }

    /// How many terms the longest sum behind one result has: rounding errors grow with it.
    pub fn terms(mut self, terms: usize) -> Case {
        self.terms = terms.max(1);
        self
    }

    /// What its gradients are made of may cancel whatever the inputs are, so that they are held against a tensor's largest value: with
    /// one key, attention's weight is 1 and its score has no gradient, but is the difference of two sums.
    pub fn cancels(mut self) -> Case {
        self.cancels = true;
        self
    }

    /// Too large to be differentiated number by number: only compared between devices.
    pub fn large(mut self) -> Case {
        self.large = true;
        self
    }

    /// The same result by primitives.
    pub fn composed(mut self, run: impl Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync + 'static) -> Case {
        self.composed = Some(Box::new(run));
        self
    }

    /// Its inputs on a device; the differentiable ones as leaves of the tape.
    pub fn tensors(&self, device: &Device, draw: Draw) -> Vec<Tensor> {
        self.inputs.iter().enumerate().map(|(at, input)| input.tensor(device, at as u64, draw)).collect()
    }

    /// Calls the op.
    pub fn call(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        (self.run)(inputs)
    }

    /// Outputs, and the gradients of the differentiable inputs against fixed random gradients of the outputs.
    pub(super) fn outcome(&self, device: &Device, run: &Function, draw: Draw) -> Result<Vec<Vec<f64>>, String> {
        let inputs = self.tensors(device, draw);
        let outputs = run(&inputs);
        let mut all = Vec::new();
        for output in &outputs {
            all.push(read(output)?);
        }
        if let Some(gradients) = backward(&outputs, draw)
            && !self.large
        {
            for leaf in inputs.iter().filter(|input| input.requires_grad()) {
                if let Some(gradient) = gradients.get(leaf) {
                    all.push(read(gradient)?);
                }
            }
        }
        Ok(all)
    }

    /// What it comes to in f64, computed once.
    pub(super) fn truth(&self) -> Result<&Truth, String> {
        self.truth.get_or_init(|| Truth::of(self)).as_ref().map_err(String::clone)
    }

    /// How far a result in f32 may be from the same in f64, relative to the size of what it is made of: a rounding error for every
    /// step of a sum, which add up like a random walk, and a few for the functions inside.
    pub(super) fn tolerance(&self) -> f64 {
        f64::from(f32::EPSILON) * (16.0 + 4.0 * (self.terms as f64).sqrt())
    }
}
