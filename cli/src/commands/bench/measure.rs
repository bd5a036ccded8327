//! Timing a workload, and its error against f64.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wgtune_engine::device::{Config, MatmulPrecision, Span};
use wgtune_engine::{Device, Result, Tensor};

use super::check::{self, Check, Checked};
use super::results::{Ceilings, Direction, Measurement};
use super::workload::{Outcome, Workload, gradient_like};
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

    /// Times `workload`, and compares the results of the last run with f64, or those of the smaller one of its kind.
    ///
    /// # Errors
    /// What the device met. The next measurement opens it anew.
    pub fn measure(&mut self, workload: &Workload, smaller: &Workload, ceilings: &Ceilings) -> Result<Measured> {
        let device = self.device(workload.rung.map(|rung| rung.number))?;
        let outcome = self.measure_on(&device, workload, smaller, ceilings);
        if outcome.is_err() {
            self.reopen();
        }
        outcome
    }

    fn measure_on(&self, device: &Device, workload: &Workload, smaller: &Workload, ceilings: &Ceilings) -> Result<Measured> {
        let Timed { times, spans, outcome, wrote } = self.time(device, workload)?;
        let mut measured = Measurement::new(&times, &spans, ceilings);
        let check = match check::check(workload, self.last_seed(), &outcome, measured.flops)? {
            Some(check) => check,
            None => {
                drop(outcome);
                measured.error_shape = Some(smaller.shape.clone());
                let outcome = smaller.run(&smaller.tensors(device, self.seed), |output| gradient_like(output, self.seed));
                let whole = check::check(smaller, self.seed, &outcome, 0)?;
                whole.map_or(Check { error: f64::NAN, elements: 0, of: Checked::Smaller }, |whole| Check {
                    of: Checked::Smaller,
                    ..whole
                })
            }
        };
        measured.error = Some(check.error);
        measured.error_of = Some(check.of);
        measured.error_elements = Some(check.elements);
        measured.name = workload.name.clone();
        measured.op = workload.op.to_string();
        measured.model = workload.model.to_string();
        measured.shape = workload.shape.clone();
        measured.direction = workload.direction;
        let tolerance = tolerance(device, workload);
        let fault = match () {
            _ if measured.seconds.median <= 0.0 => Some("took no time: the device did nothing, or its clock stands still".into()),
            _ if !wrote => Some("wrote nothing: its results are those of the run before, whose inputs were others".into()),
            _ if check.error.is_nan() => Some("came to NaN where f64 does not".into()),
            _ if check.error > tolerance => {
                Some(format!("is wrong: {:.1e} of the largest result from f64, where {tolerance:.0e} is allowed", check.error))
            }
            _ => None,
        };
        Ok(Measured { measurement: measured, fault })
    }

    /// Of the inputs of the last run.
    fn last_seed(&self) -> u64 {
        self.seed.wrapping_add(1)
    }

    /// Times a workload's runs, by its kernels alone. The last has inputs of its own: what it came to is none of what the runs before
    /// left, and an update in place begins at what is known.
    fn time(&self, device: &Device, workload: &Workload) -> Result<Timed> {
        let given = |seed: u64| {
            let inputs = workload.tensors(device, seed);
            let gradient = match workload.direction {
                Direction::Forward => None,
                _ => Some(gradient_like(&workload.call(&inputs)[0], seed)),
            };
            (inputs, gradient)
        };
        let once = |(inputs, gradient): &(Vec<Tensor>, Option<Tensor>)| -> Result<(Outcome, Vec<Span>)> {
            match (gradient, workload.direction) {
                (Some(gradient), Direction::Backward) => {
                    let outputs = workload.call(inputs);
                    device.profile(|| Outcome::backward(inputs, outputs, gradient))
                }
                (Some(gradient), _) => device.profile(|| workload.run(inputs, |_| gradient.clone())),
                (None, _) => device.profile(|| workload.run(inputs, Tensor::clone)),
            }
        };
        let same = given(self.seed);
        let all = repeat(self.budget, || once(&same).map(|(_, spans)| spans))?;
        let before = check::beginnings(&once(&same)?.0, workload)?;
        drop(same);
        let (outcome, spans) = once(&given(self.last_seed()))?;
        let after = check::beginnings(&outcome, workload)?;
        // Of an index among few, or of a constant, both runs may rightly come to the same.
        let wrote = before.iter().zip(&after).all(|(before, after)| before != after || constant(after));
        let of_run = |spans: &Vec<Span>| spans.iter().map(|span| span.seconds).sum();
        let times = all.iter().chain([&spans]).map(of_run).collect();
        Ok(Timed { times, spans, outcome, wrote })
    }
}

/// A measurement, and what makes it void.
pub struct Measured {
    pub measurement: Measurement,
    pub fault: Option<String>,
}

struct Timed {
    /// Seconds of each run.
    times: Vec<f64>,
    /// The dispatches of the last run, and what it came to.
    spans: Vec<Span>,
    outcome: Outcome,
    /// Whether it came to something else than the run before, with other inputs.
    wrote: bool,
}

/// Whether all of several elements are one number, which other inputs may have led to as well.
fn constant(values: &[f64]) -> bool {
    values.len() > 1 && values.windows(2).all(|pair| pair[0] == pair[1])
}

/// How far results may be from f64, relative to the largest. f32 rounds at 6e-8, and sums of 10^5 terms in blocks add up to a few
/// hundred roundings in a row; a thousand times more is a mistake. f16 and bf16 round at 5e-4 and 4e-3.
fn tolerance(device: &Device, workload: &Workload) -> f64 {
    let is_narrow = device.matmul_precision() == MatmulPrecision::High || workload.op == "cast";
    if is_narrow { 1e-2 } else { 1e-4 }
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

#[cfg(test)]
mod tests {
    use super::super::results::tests::CEILINGS;
    use super::super::workload::Input;
    use super::super::workload::normal;
    use super::*;
    use wgtune_engine::ops;
    use wgtune_engine::random::Philox;

    /// What is said of a workload that computes this on the CPU, and twice x in f64.
    fn fault(on_cpu: impl Fn(&Tensor) -> Tensor + 'static) -> Option<String> {
        let open = HashMap::from([(None, Device::cpu())]);
        let mut bench = Bench { device: "cpu".into(), config: Config::default(), open, budget: Duration::ZERO, seed: 1 };
        let reference = Device::reference().name().to_string();
        let call = move |x: &[Tensor]| match x[0].device().name() == reference {
            true => vec![ops::scale(&x[0], 2.0)],
            false => vec![on_cpu(&x[0])],
        };
        let of = || Input::given([33, 5], wgtune_engine::DType::F32);
        let [workload, smaller] =
            [Workload::new("scale", "scale", "33 x 5", [of()], call), Workload::new("", "", "", [of()], |_| vec![])];
        bench.measure(&workload, &smaller, &CEILINGS).unwrap().fault
    }

    #[test]
    fn what_is_wrong_or_nan_or_did_nothing_is_at_fault() {
        assert_eq!(fault(|x| ops::scale(x, 2.0)), None);
        assert!(fault(|x| ops::scale(x, 2.01)).unwrap().starts_with("is wrong: 5.0e-3 of the largest result"));
        assert!(fault(|x| ops::scale(x, f32::NAN)).unwrap().contains("NaN"));
        let held = ops::scale(&Device::cpu().tensor(&[1.0; 165], [33, 5]), 2.0);
        assert!(fault(move |_| held.clone()).unwrap().contains("no time"));
        // Time passes, but what comes of it is always the same.
        let old = normal(Philox::new(7), 165);
        assert!(fault(move |x| ops::copy(&x.device().tensor(&old, [33, 5]).transpose())).unwrap().contains("wrote nothing"));
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
