//! Timing a workload, and its error against f64.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wgtune_engine::device::{Config, Span};
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Result, Tensor};

use super::results::{Ceilings, Direction, Measurement};
use super::workload::{Workload, normal};
use crate::common::Compute;

/// However slow a workload is, it is run so often after warming up.
const LEAST_RUNS: usize = 3;
/// A fast one is run no more often.
const MOST_RUNS: usize = 500;

/// How things are measured.
pub struct Bench {
    /// What `--device` said.
    device: String,
    config: Config,
    /// By the shader that each is forced to take of every kernel that has so many.
    open: HashMap<Option<usize>, Device>,
    /// Time for each measurement.
    pub budget: Duration,
    pub seed: u64,
}

impl Bench {
    /// Measures on `device`, which was opened as `compute` says.
    pub fn new(compute: &Compute, device: Device, budget: Duration) -> Bench {
        let open = HashMap::from([(None, device)]);
        Bench { device: compute.device.clone(), config: compute.config(), open, budget, seed: compute.seed }
    }

    /// The device, where `shader` forces one shader of every kernel; opened when it is first asked for.
    pub fn device(&mut self, shader: Option<usize>) -> Result<Device> {
        if let Some(device) = self.open.get(&shader) {
            return Ok(device.clone());
        }
        let device = Device::open_with(&self.device, &Config { shader, ..self.config.clone() })?;
        self.open.insert(shader, device.clone());
        Ok(device)
    }

    /// Forgets a device that failed: it is opened anew when it is next asked for.
    pub fn reopen(&mut self) {
        self.open.clear();
    }

    /// Times `workload` and checks it, or the smaller one of its kind where it is large.
    ///
    /// # Errors
    /// What the device met. The next measurement opens it anew.
    pub fn measure(&mut self, workload: &Workload, smaller: &Workload, ceilings: &Ceilings) -> Result<Measurement> {
        let device = self.device(workload.rung.map(|rung| rung.number))?;
        let outcome = self.measure_on(&device, workload, smaller, ceilings);
        if outcome.is_err() {
            self.reopen();
        }
        outcome
    }

    fn measure_on(&self, device: &Device, workload: &Workload, smaller: &Workload, ceilings: &Ceilings) -> Result<Measurement> {
        let (times, spans) = self.time(device, workload)?;
        let mut measured = Measurement::new(&times, &spans, ceilings);
        let is_large = measured.flops > 1_000_000_000 || measured.bytes > 64_000_000;
        let checked = if is_large { smaller } else { workload };
        measured.error = Some(self.error(device, checked)?);
        measured.error_shape = Some(checked.shape.clone()).filter(|shape| *shape != workload.shape);
        measured.name = workload.name.clone();
        measured.op = workload.op.to_string();
        measured.model = workload.model.to_string();
        measured.shape = workload.shape.clone();
        measured.direction = workload.direction;
        Ok(measured)
    }

    /// The times of a workload's runs, by its kernels alone, and the dispatches of the last of them.
    fn time(&self, device: &Device, workload: &Workload) -> Result<(Vec<f64>, Vec<Span>)> {
        let inputs = workload.tensors(device, self.seed);
        let gradient = match workload.direction {
            Direction::Forward => None,
            _ => Some(gradient_like(&workload.call(&inputs)[0])),
        };
        let once = || -> Result<Vec<Span>> {
            let outputs = match workload.direction {
                Direction::Backward => workload.call(&inputs),
                _ => Vec::new(),
            };
            let (_held, spans) = device.profile(|| match (workload.direction, &gradient) {
                (Direction::Backward, Some(gradient)) => (Vec::new(), Some(outputs[0].backward_from(gradient))),
                (Direction::Both, Some(gradient)) => {
                    let outputs = workload.call(&inputs);
                    let gradients = outputs[0].backward_from(gradient);
                    (outputs, Some(gradients))
                }
                _ => (workload.call(&inputs), None),
            })?;
            Ok(spans)
        };
        let all = repeat(self.budget, once)?;
        let times = all.iter().map(|spans| spans.iter().map(|span| span.seconds).sum()).collect();
        Ok((times, all.into_iter().next_back().unwrap_or_default()))
    }

    /// The largest difference of any result, gradients included, from the same in f64, relative to that result's largest value.
    fn error(&self, device: &Device, workload: &Workload) -> Result<f64> {
        let (got, expected) = (self.outcome(device, workload)?, self.outcome(&Device::reference(), workload)?);
        Ok(got.iter().zip(&expected).map(|(got, expected)| largest_difference(got, expected)).fold(0.0, f64::max))
    }

    fn outcome(&self, device: &Device, workload: &Workload) -> Result<Vec<Vec<f64>>> {
        let inputs = workload.tensors(device, self.seed);
        let outputs = workload.call(&inputs);
        let mut all = outputs.iter().map(read).collect::<Result<Vec<_>>>()?;
        if workload.direction != Direction::Forward {
            let gradients = outputs[0].backward_from(&gradient_like(&outputs[0]));
            for gradient in inputs.iter().filter_map(|input| gradients.get(input)) {
                all.push(read(gradient)?);
            }
        }
        Ok(all)
    }
}

/// What `run` returned each time, after warming up: as often as the budget allows, within limits.
pub fn repeat<T, E>(budget: Duration, mut run: impl FnMut() -> std::result::Result<T, E>) -> std::result::Result<Vec<T>, E> {
    // The first run compiles, the second finds memory in place.
    let begun = Instant::now();
    run()?;
    if begun.elapsed() < 20 * budget {
        run()?;
    }
    let (begun, mut all) = (Instant::now(), Vec::new());
    while all.len() < LEAST_RUNS || (begun.elapsed() < budget && all.len() < MOST_RUNS) {
        all.push(run()?);
    }
    Ok(all)
}

pub fn gradient_like(output: &Tensor) -> Tensor {
    output.device().tensor(&normal(Philox::new(1), output.elements()), output.shape())
}

fn read(tensor: &Tensor) -> Result<Vec<f64>> {
    match tensor.dtype() {
        DType::U32 => Ok(tensor.to_vec_u32()?.into_iter().map(f64::from).collect()),
        _ => tensor.to_vec_f64(),
    }
}

fn largest_difference(got: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    // A difference that is NaN is no small one.
    let differences = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs() / largest);
    differences.fold(0.0, |most: f64, next| if next <= most || most.is_nan() { most } else { next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_and_nan_is_the_largest() {
        assert_eq!(largest_difference(&[1.0, -3.0], &[1.0, -4.0]), 0.25);
        assert!(largest_difference(&[f64::NAN, 2.0], &[1.0, 2.0]).is_nan());
        assert_eq!(largest_difference(&[], &[]), 0.0);
    }

    #[test]
    fn a_run_is_repeated_at_least_thrice_and_an_error_ends_it() {
        let mut runs = 0;
        let count = || {
            runs += 1;
            Ok::<_, ()>(runs)
        };
        let counted = repeat(Duration::ZERO, count).unwrap();
        assert!(counted.len() >= LEAST_RUNS && runs > counted.len());
        assert_eq!(repeat(Duration::ZERO, || Err::<(), _>("gone")), Err("gone"));
    }
}
