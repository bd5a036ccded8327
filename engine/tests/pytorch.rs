//! Law 7: every op gives PyTorch's own numbers, forward and backward, on the CPU and on every GPU adapter there is. The fixtures
//! were written by `fixtures/generate.py`, which says what they hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;
use wgtune_engine::device::adapters;
use wgtune_engine::optim::{AdamW, AdamWConfig, Moments, Parameter, Parameters, Sgd};
use wgtune_engine::{DType, Device, Tensor, ops};

/// How far a result may be from PyTorch's f64, relative to the tensor's largest. The longest sum behind one has 150 terms, whose
/// rounding errors add up like a random walk of 13 steps; the functions inside add a few units in the last place each.
const TOLERANCE: f32 = 64.0 * f32::EPSILON;

/// The index by which PyTorch marks a row that does not count.
const IGNORE_INDEX: i32 = -100;

#[derive(Deserialize)]
struct Fixtures {
    cases: Vec<Case>,
}

/// One op on one set of inputs, with the shapes of its tensors by name.
#[derive(Deserialize)]
struct Case {
    op: String,
    case: String,
    attributes: Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let cases = serde_json::from_slice::<Fixtures>(&read("ops.json")).expect("ops.json holds cases").cases;
    let (cases, bytes) = (Arc::new(cases), Arc::new(read("ops.safetensors")));
    let adapters = adapters();
    let gpus = adapters.iter().enumerate().map(|(index, adapter)| (format!("gpu:{index}"), adapter.name.clone()));
    let mut trials = Vec::new();
    for (name, label) in std::iter::once(("cpu".to_string(), "cpu".to_string())).chain(gpus) {
        let device = Device::open(&name).unwrap_or_else(|error| panic!("{label}: {error}"));
        for at in 0..cases.len() {
            let (cases, bytes, device) = (cases.clone(), bytes.clone(), device.clone());
            let check = move || check(&cases[at], &bytes, &device).map_err(Failed::from);
            trials.push((at, label.clone(), check));
        }
    }
    let mut trials: Vec<Trial> = trials
        .into_iter()
        .map(|(at, label, check)| Trial::test(format!("{label}: {}.{}", cases[at].op, cases[at].case), check))
        .collect();
    if adapters.is_empty() {
        trials.push(Trial::test("gpu: every op (no adapter found)", || Ok(())).with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn check(case: &Case, bytes: &[u8], device: &Device) -> Result<(), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let context = Context { case, file, device };
    match case.op.as_str() {
        "adamw" => context.adamw(),
        "sgd" => context.sgd(),
        _ => context.function(),
    }
}

struct Context<'a> {
    case: &'a Case,
    file: SafeTensors<'a>,
    device: &'a Device,
}

impl Context<'_> {
    /// An op's output, and the gradients of its inputs.
    fn function(&self) -> Result<(), String> {
        let has = |name: &str| self.case.tensors.contains_key(name);
        let mut inputs = Vec::new();
        while has(&format!("in{}", inputs.len())) {
            let input = self.tensor(&format!("in{}", inputs.len()));
            inputs.push(if has(&format!("grad_in{}", inputs.len())) { input.requiring_grad() } else { input });
        }
        let output = self.evaluate(&inputs)?;
        self.compare("out", &output)?;
        if !has("grad_out") {
            return Ok(());
        }
        let gradients = output.backward_from(&self.tensor("grad_out"));
        for (at, input) in inputs.iter().enumerate().filter(|(_, input)| input.requires_grad()) {
            let gradient = gradients.get(input).ok_or_else(|| format!("expected a gradient for in{at}, got none"))?;
            self.compare(&format!("grad_in{at}"), gradient)?;
        }
        Ok(())
    }

    /// The engine's counterpart of a case.
    fn evaluate(&self, x: &[Tensor]) -> Result<Tensor, String> {
        let attribute = |name: &str| &self.case.attributes[name];
        let number = |name: &str| attribute(name).as_u64().map(|number| number as usize);
        let eps = || attribute("eps").as_f64().unwrap_or_default() as f32;
        let axis = || number("axis").ok_or("expected an axis");
        let kept = |y: Tensor, axis: usize| match attribute("keep_axis") {
            Value::Bool(true) => y.reshape(x[0].shape().with(axis, 1)),
            _ => y,
        };
        Ok(match self.case.op.as_str() {
            "neg" => ops::neg(&x[0]),
            "exp" => ops::exp(&x[0]),
            "log" => ops::log(&x[0]),
            "sqrt" => ops::sqrt(&x[0]),
            "rsqrt" => ops::rsqrt(&x[0]),
            "reciprocal" => ops::reciprocal(&x[0]),
            "square" => ops::square(&x[0]),
            "abs" => ops::abs(&x[0]),
            "sin" => ops::sin(&x[0]),
            "cos" => ops::cos(&x[0]),
            "tanh" => ops::tanh(&x[0]),
            "sigmoid" => ops::sigmoid(&x[0]),
            "softplus" => ops::softplus(&x[0]),
            "relu" => ops::relu(&x[0]),
            "silu" => ops::silu(&x[0]),
            "gelu" => ops::gelu(&x[0]),
            "gelu_tanh" => ops::gelu_tanh(&x[0]),
            "add" => ops::add(&x[0], &x[1]),
            "sub" => ops::sub(&x[0], &x[1]),
            "mul" => ops::mul(&x[0], &x[1]),
            "div" => ops::div(&x[0], &x[1]),
            "maximum" => ops::maximum(&x[0], &x[1]),
            "minimum" => ops::minimum(&x[0], &x[1]),
            "sum" => kept(ops::sum_axis(&x[0], axis()?), axis()?),
            "mean" => kept(ops::mean_axis(&x[0], axis()?), axis()?),
            "max" => kept(ops::max_axis(&x[0], axis()?), axis()?),
            "argmax" => ops::argmax_axis(&x[0], axis()?),
            "softmax" => ops::softmax(&x[0]),
            "log_softmax" => ops::log_softmax(&x[0]),
            "layer_norm" => ops::layer_norm(&x[0], &x[1], &x[2], eps()),
            "rms_norm" => ops::rms_norm(&x[0], &x[1], eps()),
            "rope" => ops::rope(&x[0], &x[1], &x[2], &self.first_positions(&x[0])),
            "attention" => {
                let lengths = attribute("key_lengths").as_array().map(|lengths| {
                    let lengths: Vec<u32> = lengths.iter().filter_map(Value::as_u64).map(|length| length as u32).collect();
                    self.device.tensor_u32(&lengths, [lengths.len()])
                });
                let (causal, start) = (attribute("causal") == &Value::Bool(true), number("start").unwrap_or(0));
                let mask = ops::Mask { causal, start, window: number("window"), lengths, ..ops::Mask::default() };
                ops::attention(&x[0], &x[1], &x[2], &mask)
            }
            "matmul" => match attribute("layout").as_str() {
                Some("NN") => ops::matmul(&x[0], &x[1]),
                Some("NT") => ops::matmul(&x[0], &x[1].transpose()),
                Some("TN") => ops::matmul(&x[0].transpose(), &x[1]),
                other => return Err(format!("expected a layout of NN, NT or TN, got {other:?}")),
            },
            "swiglu" => ops::swiglu(&x[0], &x[1]),
            "cross_entropy" => ops::cross_entropy(&x[0], &x[1]).loss,
            "log_probs" => {
                let temperature = attribute("temperature").as_f64().ok_or("expected a temperature")? as f32;
                let result = ops::log_probs(&x[0], &x[1], &x[2], temperature);
                let columns = [result.log_probs, result.entropy].map(|each| each.reshape([x[2].elements(), 1]));
                ops::cat(&[&columns[0], &columns[1]], 1)
            }
            "gather" => ops::gather(&x[0], &x[1]),
            "index_add" => ops::add(&x[0], &ops::scatter_add(&x[2], &x[1], x[0].size(0))),
            "where" => ops::where_(&x[0], &x[1], &x[2]),
            "cat" => ops::cat(&x.iter().collect::<Vec<_>>(), axis()?),
            other => return Err(format!("expected an op of the engine, got {other:?}")),
        })
    }

    /// Positions [B, T] into tables whose first row is the first token's.
    fn first_positions(&self, x: &Tensor) -> Tensor {
        let [batch, length] = [x.size(0), x.size(1)];
        let positions: Vec<u32> = (0..batch).flat_map(|_| 0..length as u32).collect();
        self.device.tensor_u32(&positions, [batch, length])
    }

    fn adamw(&self) -> Result<(), String> {
        let parameter = self.tensor("param.0");
        let config = AdamWConfig { beta1: self.rate("beta1"), beta2: self.rate("beta2"), eps: self.rate("eps") };
        let parameters = self.alone(&parameter);
        let mut optimizer = AdamW::new(config, &parameters);
        let moments = Moments { mean: self.tensor("m.0"), square: self.tensor("v.0") };
        optimizer.restore(&parameters, self.rate("first_step") as u64 - 1, &[moments]);
        for step in 1..=self.rate("steps") as usize {
            let gradient = parameters.joined(&[&self.tensor(&format!("grad.{step}"))]);
            optimizer.step(&parameters, &gradient, self.rate("learning_rate"), None);
            self.compare(&format!("param.{step}"), &parameter)?;
            self.compare(&format!("m.{step}"), &optimizer.moments(&parameters)[0].mean)?;
            self.compare(&format!("v.{step}"), &optimizer.moments(&parameters)[0].square)?;
        }
        Ok(())
    }

    fn sgd(&self) -> Result<(), String> {
        let parameter = self.tensor("param.0");
        let parameters = self.alone(&parameter);
        let mut optimizer = Sgd::new(self.rate("momentum"), &parameters);
        for step in 1..=self.rate("steps") as usize {
            let gradient = parameters.joined(&[&self.tensor(&format!("grad.{step}"))]);
            optimizer.step(&parameters, &gradient, self.rate("learning_rate"), None);
            self.compare(&format!("param.{step}"), &parameter)?;
            let velocity = format!("momentum.{step}");
            if self.case.tensors.contains_key(&velocity) {
                self.compare(&velocity, &optimizer.velocities(&parameters)[0])?;
            }
        }
        Ok(())
    }

    fn alone(&self, parameter: &Tensor) -> Parameters {
        let weight_decay = self.rate("weight_decay");
        Parameters::gather([Parameter { name: "param".into(), tensor: parameter.clone(), weight_decay, rate: 1.0 }])
    }

    fn rate(&self, name: &str) -> f64 {
        self.case.attributes[name].as_f64().unwrap_or_else(|| panic!("expected a number {name} in {}", self.case.attributes))
    }

    /// A tensor of the fixtures on the device: f32, or u32 from i32.
    fn tensor(&self, name: &str) -> Tensor {
        let shape = self.case.tensors[name].clone();
        match self.stored(name) {
            Stored::Floats(values) => self.device.tensor(&values, shape),
            Stored::Integers(values) => {
                let index = |value: i32| if value == IGNORE_INDEX { ops::IGNORE } else { value as u32 };
                self.device.tensor_u32(&values.into_iter().map(index).collect::<Vec<u32>>(), shape)
            }
        }
    }

    fn stored(&self, name: &str) -> Stored {
        let key = format!("{}.{}.{name}", self.case.op, self.case.case);
        let view = self.file.tensor(&key).unwrap_or_else(|error| panic!("{key}: {error}"));
        let words = view.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
        match view.dtype() {
            safetensors::Dtype::F32 => Stored::Floats(words.map(f32::from_le_bytes).collect()),
            safetensors::Dtype::I32 => Stored::Integers(words.map(i32::from_le_bytes).collect()),
            other => panic!("{key}: expected F32 or I32, got {other:?}"),
        }
    }

    fn compare(&self, name: &str, got: &Tensor) -> Result<(), String> {
        let shape = &self.case.tensors[name];
        if got.shape()[..] != shape[..] {
            return Err(format!("expected {name} of shape {shape:?}, got {:?}", got.shape()));
        }
        let expected = match self.stored(name) {
            Stored::Floats(values) => values,
            Stored::Integers(values) => values.into_iter().map(|value| value as f32).collect(),
        };
        let values = match got.dtype() {
            DType::U32 => got.to_vec_u32().map(|values| values.into_iter().map(|value| value as f32).collect()),
            _ => got.to_vec(),
        };
        let values = values.map_err(|error| error.to_string())?;
        let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        for (at, (expected, got)) in expected.iter().zip(&values).enumerate() {
            let gap = (expected - got).abs();
            if gap.is_nan() || gap > TOLERANCE * largest {
                return Err(format!("expected {expected} at {at} of {name}, got {got} (the largest is {largest})"));
            }
        }
        Ok(())
    }
}

enum Stored {
    Floats(Vec<f32>),
    Integers(Vec<i32>),
}
