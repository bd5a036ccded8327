//! The laws that every op obeys, and the cases they are run on. Tests, benches and the reference page share them.

use crate::device::{Config, Device};
use crate::kernel::{AnyKernel, Target};
use crate::ops::{self, Op};
use crate::random::Philox;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Sizes at which a kernel's edges lie: nothing, one, and either side of a subgroup, a workgroup and a tile.
pub const EDGES: [usize; 8] = [0, 1, 63, 64, 65, 255, 256, 257];

/// The devices that unit tests go through: a GPU where there is an adapter.
#[cfg(test)]
pub(crate) fn device_names() -> impl Iterator<Item = &'static str> {
    let gpu = (!crate::device::adapters().is_empty()).then_some("gpu");
    ["cpu", "reference"].into_iter().chain(gpu)
}

/// Runs an op.
type Function = Box<dyn Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync>;

/// One set of inputs for an op, and how to call it.
pub struct Case {
    /// What is special about it.
    pub name: String,
    inputs: Vec<Input>,
    run: Function,
    terms: usize,
    large: bool,
    composed: Option<Function>,
}

impl Case {
    /// A case that calls `run` on tensors of these inputs.
    pub fn new<const N: usize>(
        name: impl Into<String>,
        inputs: [Input; N],
        run: impl Fn(&[Tensor]) -> Vec<Tensor> + Send + Sync + 'static,
    ) -> Case {
        Case { name: name.into(), inputs: inputs.into(), run: Box::new(run), terms: 1, large: false, composed: None }
    }

    /// How many terms the longest sum behind one result has: rounding errors grow with it.
    pub fn terms(mut self, terms: usize) -> Case {
        self.terms = terms.max(1);
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

    /// Its inputs on a device; the differentiable ones as leaves of the tape. `extreme` replaces values of any size by +-1e4.
    pub fn tensors(&self, device: &Device, extreme: bool) -> Vec<Tensor> {
        self.inputs.iter().enumerate().map(|(at, input)| input.tensor(device, at as u64, extreme)).collect()
    }

    /// Calls the op.
    pub fn call(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        (self.run)(inputs)
    }

    /// Outputs, and the gradients of the differentiable inputs against fixed random gradients of the outputs.
    fn outcome(&self, device: &Device, run: &Function, extreme: bool) -> Result<Vec<Vec<f64>>, String> {
        let inputs = self.tensors(device, extreme);
        let outputs = run(&inputs);
        let mut all = Vec::new();
        for output in &outputs {
            all.push(read(output)?);
        }
        if let Some(gradients) = backward(&outputs)
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

    /// How far a result in f32 may be from the same in f64, relative to the tensor's largest: a rounding error for every
    /// step of a sum, which add up like a random walk, and a few for the functions inside.
    fn tolerance(&self) -> f64 {
        f64::from(f32::EPSILON) * (16.0 + 4.0 * (self.terms as f64).sqrt())
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

    fn tensor(&self, device: &Device, key: u64, extreme: bool) -> Tensor {
        let count = self.shape.elements();
        let random = Philox::new(key);
        let uniform = || (0..count as u64).map(|i| random.uniform(i));
        let floats = |values: Vec<f32>| device.tensor(&values, self.shape);
        match &self.values {
            Values::Any if extreme => floats(uniform().map(|u| if u < 0.5 { -1e4 } else { 1e4 }).collect()).requiring_grad(),
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

/// A law: what it says, and the check of one case on one device.
pub struct Law {
    /// Its name.
    pub name: &'static str,
    /// Whether it is about the device at hand, or only about the op's mathematics.
    pub on_every_device: bool,
    /// Whether it wants [`Config::guards`].
    pub guards: bool,
    /// The check; the error says what was expected and what came.
    pub check: fn(&Case, &Device) -> Result<(), String>,
}

/// The laws that run over every case. PyTorch's own numbers are compared in `tests/pytorch.rs`; edge sizes are in the cases.
pub const LAWS: [Law; 6] = [
    Law { name: "gradient", on_every_device: false, guards: false, check: gradient },
    Law { name: "agrees with f64", on_every_device: true, guards: false, check: agrees },
    Law { name: "finite at 1e4", on_every_device: true, guards: false, check: finite },
    Law { name: "same bits again", on_every_device: true, guards: false, check: repeats },
    Law { name: "fused equals composed", on_every_device: true, guards: false, check: composes },
    Law { name: "stays inside", on_every_device: true, guards: true, check: stays_inside },
];

/// Every law on one op's cases, by the op's name; the error says which laws do not hold.
pub type Trial = (String, Box<dyn FnOnce() -> Result<(), String> + Send>);

/// Every op's every case under every law that applies to the device of this name ([`Device::open`]). On a GPU, ops with
/// several shaders run once more on each of them but those for products of f16, which these laws are too strict for. A trial opens
/// its devices for itself, so that what one breaks no other sees.
pub fn trials(device: &str) -> Vec<Trial> {
    let variants = if is_gpu(device) { ops::OPS.iter().map(shaders).max().unwrap_or(0) } else { 0 };
    let mut trials = Vec::new();
    for shader in std::iter::once(None).chain((0..variants).map(Some)) {
        let has_it = |op: &&Op| shader.is_none_or(|shader| shaders(op) > shader.max(1));
        trials.extend(ops::OPS.iter().filter(has_it).map(|op| trial(device.to_string(), op, shader)));
    }
    trials
}

fn is_gpu(device: &str) -> bool {
    device.starts_with("gpu")
}

fn trial(device: String, op: &'static Op, shader: Option<usize>) -> Trial {
    let variant = shader.map_or(String::new(), |shader| format!(", shader {shader}"));
    let check = move || {
        let laws = LAWS.iter().filter(|law| law.on_every_device != (device == "reference"));
        // A driver compiles every shader anew for each device that is opened, which takes most of the time, so that there all laws
        // share the one with guards. These change no shader.
        let open = |guards: bool| Device::open_with(&device, &Config { guards, shader, ..Config::default() });
        let guarded = open(true).map_err(|error| error.to_string())?;
        let plain = if is_gpu(&device) { guarded.clone() } else { open(false).map_err(|error| error.to_string())? };
        let broken = |law: &Law| {
            let device = if law.guards { &guarded } else { &plain };
            let checked =
                |case: &Case| (law.check)(case, device).map_err(|error| format!("{}: {}: {error}", law.name, case.name));
            (op.cases)().iter().try_for_each(checked).err()
        };
        let broken: Vec<String> = laws.filter_map(broken).collect();
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    };
    (format!("{}{variant}", op.name), Box::new(check))
}

/// The most shaders of f32 that one of an op's kernels has: they are listed before those of f16.
fn shaders(op: &Op) -> usize {
    let of_kernel = |kernel: &&AnyKernel| {
        let is_of_halves = |&shader: &usize| matches!((kernel.target)(shader), Target::Halves(_));
        (0..kernel.shaders).find(is_of_halves).unwrap_or(kernel.shaders)
    };
    op.kernels.iter().map(of_kernel).max().unwrap_or(0)
}

/// The gradient along a random direction is the difference quotient along it, in f64.
fn gradient(case: &Case, _: &Device) -> Result<(), String> {
    let device = Device::reference();
    let inputs = case.tensors(&device, false);
    let leaves: Vec<usize> = (0..inputs.len()).filter(|&at| inputs[at].requires_grad()).collect();
    let outputs = case.call(&inputs);
    if case.large || leaves.is_empty() || inputs.iter().any(|input| input.elements() == 0) {
        return Ok(());
    }
    let Some(gradients) = backward(&outputs) else { return Ok(()) };
    let random = |key: u64, shape: Shape| {
        let random = Philox::new(key);
        let values: Vec<f32> = (0..shape.elements() as u64).map(|i| random.normal(i)).collect();
        device.tensor(&values, shape)
    };
    // Central differences err by the step squared, and by the rounding of f64 over the step: 1e-4 balances them near 1e-9.
    const STEP: f32 = 1e-4;
    let shifted = |sign: f32| {
        let inputs: Vec<Tensor> = inputs
            .iter()
            .enumerate()
            .map(|(at, input)| match leaves.contains(&at) {
                true => ops::add(&input.detach(), &ops::scale(&random(1000 + at as u64, input.shape()), sign * STEP)),
                false => input.clone(),
            })
            .collect();
        weighted(&case.call(&inputs)).map_or(Ok(0.0), |loss| read(&loss).map(|values| values[0]))
    };
    let quotient = (shifted(1.0)? - shifted(-1.0)?) / (2.0 * f64::from(STEP));
    let (mut slope, mut size) = (0.0, 0.0);
    for at in leaves {
        let direction = read(&random(1000 + at as u64, inputs[at].shape()))?;
        let gradient = gradients.get(&inputs[at]).map_or(Ok(vec![0.0; direction.len()]), read)?;
        slope += gradient.iter().zip(&direction).map(|(g, d)| g * d).sum::<f64>();
        size += gradient.iter().map(|g| g * g).sum::<f64>();
    }
    // The slope may happen to be near 0, so the gap is measured against the gradient's length too.
    let gap = (slope - quotient).abs() / slope.abs().max(size.sqrt()).max(1e-3);
    (gap < 1e-6).then_some(()).ok_or_else(|| format!("expected a slope of {quotient}, got {slope} (relative gap {gap:.1e})"))
}

fn agrees(case: &Case, device: &Device) -> Result<(), String> {
    let expected = case.outcome(&Device::reference(), &case.run, false)?;
    compare(&expected, &case.outcome(device, &case.run, false)?, case.tolerance())
}

fn finite(case: &Case, device: &Device) -> Result<(), String> {
    for (which, values) in case.outcome(device, &case.run, true)?.iter().enumerate() {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(format!("expected finite results, got {} at {at} of result {which}", values[at]));
        }
    }
    Ok(())
}

fn repeats(case: &Case, device: &Device) -> Result<(), String> {
    let (first, second) = (case.outcome(device, &case.run, false)?, case.outcome(device, &case.run, false)?);
    (first == second).then_some(()).ok_or_else(|| "expected the same bits again".to_string())
}

fn composes(case: &Case, device: &Device) -> Result<(), String> {
    let Some(composed) = &case.composed else { return Ok(()) };
    let expected = case.outcome(device, composed, false)?;
    // Both sides round, and the composition more often.
    compare(&expected, &case.outcome(device, &case.run, false)?, 4.0 * case.tolerance())
}

/// The device has guards: it says itself what was written outside, and what was read there, or not written, is NaN or the largest
/// u32.
fn stays_inside(case: &Case, device: &Device) -> Result<(), String> {
    for (which, values) in case.outcome(device, &case.run, false)?.iter().enumerate() {
        if let Some(at) = values.iter().position(|value| value.is_nan() || *value == f64::from(u32::MAX)) {
            return Err(format!("expected what was computed inside, got poison at {at} of result {which}"));
        }
    }
    Ok(())
}

fn compare(expected: &[Vec<f64>], got: &[Vec<f64>], tolerance: f64) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!("expected {} results, got {}", expected.len(), got.len()));
    }
    for (which, (expected, got)) in expected.iter().zip(got).enumerate() {
        if expected.len() != got.len() {
            return Err(format!("expected {} elements of result {which}, got {}", expected.len(), got.len()));
        }
        let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        for (at, (e, g)) in expected.iter().zip(got).enumerate() {
            let gap = (e - g).abs();
            if gap.is_nan() || gap > tolerance * (largest + f64::from(f32::MIN_POSITIVE)) {
                return Err(format!(
                    "expected {e} at {at} of result {which}, got {g} (the largest is {largest}, tolerance {tolerance:.1e})"
                ));
            }
        }
    }
    Ok(())
}

/// The differentiable outputs times fixed random weights, summed.
fn weighted(outputs: &[Tensor]) -> Option<Tensor> {
    let terms = outputs.iter().enumerate().filter(|(_, output)| output.dtype() == crate::DType::F32).map(|(at, output)| {
        let random = Philox::new(500 + at as u64);
        let weights: Vec<f32> = (0..output.elements() as u64).map(|i| random.normal(i)).collect();
        ops::sum(&ops::mul(output, &output.device().tensor(&weights, output.shape())))
    });
    terms.reduce(|sum, term| ops::add(&sum, &term))
}

pub(crate) fn backward(outputs: &[Tensor]) -> Option<crate::Gradients> {
    weighted(outputs).filter(Tensor::requires_grad).map(|loss| loss.backward())
}

fn read(tensor: &Tensor) -> Result<Vec<f64>, String> {
    let values = match tensor.dtype() {
        crate::DType::U32 => tensor.to_vec_u32().map(|values| values.into_iter().map(f64::from).collect()),
        _ => tensor.to_vec_f64(),
    };
    values.map_err(|error| error.to_string())
}
