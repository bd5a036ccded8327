//! Every op under every law, on the CPU and on every GPU adapter there is.

use libtest_mimic::{Arguments, Failed, Trial};
use wgtune_engine::device::adapters;
use wgtune_engine::testing::trials;

fn main() {
    let arguments = Arguments::from_args();
    let mut all = of_device("reference", "f64");
    all.extend(of_device("cpu", "cpu"));
    let adapters = adapters();
    for (index, adapter) in adapters.iter().enumerate() {
        all.extend(of_device(&format!("gpu:{index}"), &format!("{} ({})", adapter.name, adapter.backend)));
    }
    if adapters.is_empty() {
        all.push(Trial::test("gpu: every law (no adapter found)", || Ok(())).with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, all).exit();
}

fn of_device(device: &str, label: &str) -> Vec<Trial> {
    let trials = trials(device).into_iter();
    trials.map(|(name, check)| Trial::test(format!("{label}: {name}"), || check().map_err(Failed::from))).collect()
}
