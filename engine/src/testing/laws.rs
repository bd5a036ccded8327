//! The laws, and their trials.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Case, Draw, backward, read, weighted};
use crate::device::{Config, Device};
use crate::kernel::{AnyKernel, Kept, Target};
use crate::ops::{self, Op};
use crate::passes;
use crate::random::Philox;
use crate::recording::Command;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// A law: what it says, and the check of one case on one device.
pub struct Law {
    /// Its name.
    pub name: &'static str,
    /// Whether it is about the device at hand, or only about the op's mathematics.
    pub on_every_device: bool,
    /// Whether it wants [`Config::guards`].
    pub guards: bool,
    /// The check; the error says what was expected and what came.
    pub check: fn(&Subject) -> Result<(), String>,
}

/// A case on a device. Laws that look at the same results share them.
pub struct Subject<'a> {
    case: &'a Case,
    device: &'a Device,
    results: OnceCell<Result<Vec<Vec<f64>>, String>>,
}

impl<'a> Subject<'a> {
    fn new(case: &'a Case, device: &'a Device) -> Subject<'a> {
        Subject { case, device, results: OnceCell::new() }
    }

    /// What the case comes to.
    fn results(&self) -> Result<&Vec<Vec<f64>>, String> {
        self.results.get_or_init(|| self.outcome(Draw::Plain)).as_ref().map_err(String::clone)
    }

    /// The same, computed anew.
    fn outcome(&self, draw: Draw) -> Result<Vec<Vec<f64>>, String> {
        self.case.outcome(self.device, &self.case.run, draw)
    }
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
/// several shaders run once more on each of them, those cases that do not by rule, but for products of f16, which these laws are too
/// strict for. A trial opens
/// its devices for itself, so that what one breaks no other sees.
pub fn trials(device: &str) -> Vec<Trial> {
    let variants = |op| if is_gpu(device) && shaders(op) > 1 { shaders(op) } else { 0 };
    let of_op =
        |op| std::iter::once(None).chain((0..variants(op)).map(Some)).map(move |shader| trial(device.to_string(), op, shader));
    ops::OPS.iter().flat_map(of_op).collect()
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
        // The first case of each law that does not hold.
        let mut broken = BTreeMap::new();
        // A case that would run as it does by rule need not run once more.
        let takes_it = |case: &&Case| shader.is_none_or(|shader| takes(case, &guarded, shader));
        for case in cases(op).iter().filter(takes_it) {
            let (plain, guarded) = (Subject::new(case, &plain), Subject::new(case, &guarded));
            for law in laws.clone() {
                let subject = if law.guards && !is_gpu(&device) { &guarded } else { &plain };
                if !broken.contains_key(law.name)
                    && let Err(error) = (law.check)(subject)
                {
                    broken.insert(law.name, format!("{}: {}: {error}", law.name, case.name));
                }
            }
        }
        let broken: Vec<String> = broken.into_values().collect();
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    };
    (format!("{}{variant}", op.name), Box::new(check))
}

/// Whether a case runs by this shader on the device, and would not by rule.
fn takes(case: &Case, device: &Device, shader: usize) -> bool {
    let recorder = Device::cpu();
    let inputs = case.tensors(&recorder, Draw::Plain);
    let outputs = case.call(&inputs);
    let gradients = if case.large { None } else { backward(&outputs, Draw::Plain) };
    let traits = device.traits().expect("only a GPU has shaders");
    let mut temporaries = 1 << 63;
    let lowered = passes::lower(recorder.recorded(), traits, &mut Kept::default(), || {
        temporaries += 1;
        temporaries
    });
    drop(gradients);
    lowered.commands.iter().any(|command| match command {
        Command::Dispatch { kernel, params, .. } if shader < kernel.shaders => {
            let params = bytemuck::cast_slice(params);
            (kernel.allows)(params, shader, traits) && (kernel.choose)(params, traits) != shader
        }
        _ => false,
    })
}

/// An op's cases, the same for all trials: what each comes to in f64 takes as long as many a device does.
fn cases(op: &Op) -> Arc<Vec<Case>> {
    static CASES: Mutex<BTreeMap<&str, Arc<Vec<Case>>>> = Mutex::new(BTreeMap::new());
    let mut all = CASES.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(op.name).or_insert_with(|| Arc::new((op.cases)())).clone()
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
fn gradient(subject: &Subject) -> Result<(), String> {
    let case = subject.case;
    let device = Device::reference();
    let inputs = case.tensors(&device, Draw::Plain);
    let leaves: Vec<usize> = (0..inputs.len()).filter(|&at| inputs[at].requires_grad()).collect();
    let outputs = case.call(&inputs);
    if case.large || leaves.is_empty() || inputs.iter().any(|input| input.elements() == 0) {
        return Ok(());
    }
    let Some(gradients) = backward(&outputs, Draw::Plain) else { return Ok(()) };
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
        weighted(&case.call(&inputs), Draw::Plain).map_or(Ok(0.0), |loss| read(&loss).map(|values| values[0]))
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

fn agrees(subject: &Subject) -> Result<(), String> {
    subject.case.truth()?.compare(subject.results()?, subject.case.tolerance())
}

fn finite(subject: &Subject) -> Result<(), String> {
    for (which, values) in subject.outcome(Draw::Extreme)?.iter().enumerate() {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(format!("expected finite results, got {} at {at} of result {which}", values[at]));
        }
    }
    Ok(())
}

fn repeats(subject: &Subject) -> Result<(), String> {
    let again = subject.outcome(Draw::Plain)?;
    (*subject.results()? == again).then_some(()).ok_or_else(|| "expected the same bits again".to_string())
}

fn composes(subject: &Subject) -> Result<(), String> {
    let Some(composed) = &subject.case.composed else { return Ok(()) };
    let expected = subject.case.outcome(subject.device, composed, Draw::Plain)?;
    // Both sides round, and the composition more often.
    subject.case.truth()?.around(&expected).compare(subject.results()?, 4.0 * subject.case.tolerance())
}

/// The device has guards: it says itself what was written outside, and what was read there, or not written, is NaN or the largest
/// u32.
fn stays_inside(subject: &Subject) -> Result<(), String> {
    for (which, values) in subject.results()?.iter().enumerate() {
        if let Some(at) = values.iter().position(|value| value.is_nan() || *value == f64::from(u32::MAX)) {
            return Err(format!("expected what was computed inside, got poison at {at} of result {which}"));
        }
    }
    Ok(())
}
