//! What holds of a GPU alone, on every adapter; ignored where there is none.

#[path = "gpu/bands.rs"]
mod bands;
#[path = "common/programs.rs"]
mod programs;

use std::fs;

use libtest_mimic::{Arguments, Failed, Trial};
use wgtune_engine::device::{Config, adapters};
use wgtune_engine::random::Philox;
use wgtune_engine::{Device, Error, Tensor, ops};

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

const CHECKS: [(&str, Check); 6] = [
    ("a second run takes the winners of the first, whatever it drops, and gives the same bits", takes_what_won),
    ("random programs come to the same fused, unfused and grouped", runs_programs),
    ("dispatches come to the same bits in groups", groups),
    ("a device that is asked what it compiles runs nothing and tells, or does not open", tells_what_it_compiles),
    ("a weight past what a kernel can be given is read in bands", bands::reads),
    ("one that is trained is written in bands, and anything else is an error", bands::writes),
];

fn tells_what_it_compiles(name: &str) -> Result<(), Failed> {
    let config = Config { inspects: true, ..Config::default() };
    let device = match Device::open_with(name, &config) {
        Err(Error::Open { reason, .. }) if reason.contains("VK_KHR_pipeline_executable_properties") => return Ok(()),
        opened => opened?,
    };
    let x = device.tensor(&[1.0; 64], [8, 8]);
    let product = ops::matmul(&x, &x);
    assert_eq!(product.to_vec()?, [0.0; 64], "nothing ran");
    let compiled = device.compilations();
    assert!(compiled.iter().any(|one| one.kernel == "matmul" && !one.statistics.is_empty()), "{compiled:?}");
    let again = ops::matmul(&x, &x);
    device.flush()?;
    assert!(device.compilations().is_empty(), "each is compiled once");
    drop((product, again));
    Ok(())
}

fn grouped() -> Config {
    Config { groups: Some(true), guards: true, ..Config::default() }
}

/// By the rule, and by the shader that real GPUs take for small products, which has workgroup memory.
fn groups(name: &str) -> Result<(), Failed> {
    const MATMUL_TILE_32: usize = 4;
    for shader in [None, Some(MATMUL_TILE_32)] {
        let results = |groups: bool| -> Result<Vec<Vec<f32>>, Failed> {
            let config = Config { groups: Some(groups), shader, guards: true, ..Config::default() };
            let device = Device::open_with(name, &config)?;
            let (results, spans) = device.profile(|| two_layers(&device))?;
            let results = results?;
            let products = spans.iter().filter(|span| span.kernel == "matmul").count();
            assert!(if groups { products < 12 } else { products == 16 }, "{products} dispatches");
            Ok(results)
        };
        assert_eq!(results(true)?, results(false)?, "{shader:?}");
    }
    Ok(())
}

/// Two layers of one input with a low-rank update each, and their gradients: products side by side, and sums of them.
fn two_layers(device: &Device) -> Result<Vec<Vec<f32>>, Error> {
    let normal = |seed: u64, shape: [usize; 2]| {
        let values: Vec<f32> = (0..(shape[0] * shape[1]) as u64).map(|at| 0.1 * Philox::new(seed).normal(at)).collect();
        device.tensor(&values, shape)
    };
    let x = normal(0, [40, 64]).requiring_grad();
    let layers = [(1, 96), (4, 64)].map(|(seed, outputs)| {
        let [a, b] = [normal(seed + 1, [8, 64]), normal(seed + 2, [outputs, 8])].map(|factor| factor.requiring_grad());
        (normal(seed, [outputs, 64]), a, b)
    });
    let updated = layers.iter().map(|(weight, a, b)| {
        let y = ops::linear(&x, weight);
        let epilogue = ops::Epilogue { scale: 2.0, residual: Some(&y), ..Default::default() };
        ops::linear_with(&ops::linear(&x, a), b, &epilogue)
    });
    let mut results: Vec<Tensor> = updated.collect();
    let trained = layers.iter().flat_map(|(_, a, b)| [a, b]).chain([&x]);
    let loss = results.iter().map(|y| ops::sum(&ops::mul(y, y))).reduce(|sum, loss| ops::add(&sum, &loss)).expect("two layers");
    let gradients = loss.backward();
    results.extend(trained.map(|tensor| gradients.get(tensor).expect("it is trained").clone()));
    results.iter().map(Tensor::to_vec).collect()
}

fn runs_programs(name: &str) -> Result<(), Failed> {
    let expected: Vec<_> = (0..6).map(|seed| programs::run(&Device::reference(), seed)).collect::<Result<_, _>>()?;
    for config in [Config::default(), Config { no_fusion: true, ..Config::default() }, grouped()] {
        let device = Device::open_with(name, &config)?;
        for (seed, expected) in (0..).zip(&expected) {
            programs::compare(seed, expected, &programs::run(&device, seed)?);
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
