//! wgtune against the numbers of transformers, PEFT and TRL, on the CPU and on every GPU adapter there is.
//!
//! The fixtures, and the script that made them, are in `tests/fixtures`.

mod compare;
mod fixtures;
mod forward;
mod generation;
mod mixed;
mod recording;
mod rl;
mod round_trips;
mod sft;
mod training;

use libtest_mimic::{Arguments, Failed, Trial};
use wgtune_engine::Device;
use wgtune_engine::device::adapters;

/// How a check ends.
type Outcome = Result<(), Failed>;

/// Something to be tried on every device.
struct Check {
    name: String,
    run: Box<dyn FnOnce(&Device) -> Outcome + Send>,
    /// Whether what it needs is not there.
    missing: bool,
}

impl Check {
    fn new(name: impl Into<String>, run: impl FnOnce(&Device) -> Outcome + Send + 'static) -> Check {
        Check { name: name.into(), run: Box::new(run), missing: false }
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = on_device("cpu", "cpu");
    let adapters = adapters();
    for (index, adapter) in adapters.iter().enumerate() {
        trials.extend(on_device(&format!("gpu:{index}"), &adapter.name));
    }
    if adapters.is_empty() {
        trials.push(Trial::test("gpu: every check (no adapter found)", || Ok(())).with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn on_device(name: &str, label: &str) -> Vec<Trial> {
    let device = Device::open(name).unwrap_or_else(|error| panic!("{label}: {error}"));
    let groups = [
        forward::checks(),
        training::checks(),
        sft::checks(),
        generation::checks(),
        mixed::checks(),
        round_trips::checks(),
        recording::checks(name),
        rl::checks(name),
    ];
    let trial = |check: Check| {
        let device = device.clone();
        let run = move || (check.run)(&device);
        Trial::test(format!("{label}: {}", check.name), run).with_ignored_flag(check.missing)
    };
    groups.into_iter().flatten().map(trial).collect()
}
