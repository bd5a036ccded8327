//! What holds of a GPU alone, on every adapter; ignored where there is none.

#[path = "common/programs.rs"]
mod programs;

use std::fs;

use libtest_mimic::{Arguments, Failed, Trial};
use wgtune_engine::device::{Config, adapters};
use wgtune_engine::random::Philox;
use wgtune_engine::{Device, ops};

fn main() {
    let arguments = Arguments::from_args();
    let mut all = Vec::new();
    for (index, adapter) in adapters().iter().enumerate() {
        for (name, check) in CHECKS {
            let device = format!("gpu:{index}");
            all.push(Trial::test(format!("{} ({}): {name}", adapter.name, adapter.backend), move || check(&device)));
        }
    }
    if all.is_empty() {
        all.push(Trial::test("GPU (no adapter found)", || Ok(())).with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, all).exit();
}

type Check = fn(&str) -> Result<(), Failed>;

const CHECKS: [(&str, Check); 2] = [
    ("a second run takes the winners of the first, whatever it drops, and gives the same bits", takes_what_won),
    ("random programs come to the same fused and unfused", runs_programs),
];

fn runs_programs(name: &str) -> Result<(), Failed> {
    for seed in 0..6 {
        let expected = programs::run(&Device::reference(), seed)?;
        for no_fusion in [false, true] {
            let device = Device::open_with(name, &Config { no_fusion, ..Config::default() })?;
            programs::compare(seed, &expected, &programs::run(&device, seed)?);
        }
    }
    Ok(())
}

fn takes_what_won(device: &str) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let config = Config { cache: Some(folder.path().to_path_buf()), ..Config::default() };
    let run = |key: u64| -> Result<Vec<f32>, Failed> {
        let device = Device::open_with(device, &config)?;
        assert_eq!(device.words(), [""; 0]);
        let values: Vec<f32> = (0..96 * 96).map(|at| Philox::new(3).normal(at)).collect();
        let x = device.tensor(&values, [96, 96]);
        let dropped = ops::dropout(&ops::matmul(&x, &x.transpose()), Philox::new(key), 0.5);
        Ok(ops::softmax(&dropped).to_vec()?)
    };
    let winners = || -> Result<String, Failed> {
        for file in fs::read_dir(folder.path())? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                return Ok(fs::read_to_string(file)?);
            }
        }
        Err("no winners were written".into())
    };
    let (first, found) = (run(1)?, winners()?);
    assert!(["matmul ", "softmax "].iter().all(|kernel| found.contains(kernel)), "{found}");
    assert_eq!(run(1)?, first);
    assert_ne!(run(2)?, first, "another key drops other places");
    assert_eq!(winners()?, found, "nothing is timed again");
    Ok(())
}
