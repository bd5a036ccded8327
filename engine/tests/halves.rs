//! Products of f16 operands against f64: on matrix units where an adapter has them, and in emulation elsewhere, which runs all of
//! the same kernel but the units themselves.

use libtest_mimic::{Arguments, Failed, Trial};
use wgtune_engine::device::{Config, MatmulPrecision, adapters};
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, ops};

/// The shader of products that emulates matrix units.
const EMULATED: usize = 8;

fn main() {
    let arguments = Arguments::from_args();
    let mut all = Vec::new();
    for (index, adapter) in adapters().iter().enumerate() {
        for (name, check) in CHECKS {
            let device = format!("gpu:{index}");
            let trial = Trial::test(format!("{} ({}): {name}", adapter.name, adapter.backend), move || run(&device, check));
            all.push(trial.with_ignored_flag(!adapter.features.f16));
        }
    }
    if all.is_empty() {
        all.push(Trial::test("products of f16 (no adapter found)", || Ok(())).with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, all).exit();
}

type Check = fn(&Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error>;

const CHECKS: [(&str, Check); 4] = [
    ("every layout and edge", layouts),
    ("an epilogue", epilogue),
    ("a weight stored in half the bits", narrow_weights),
    ("gradients far below f16's range", small_gradients),
];

fn run(device: &str, check: Check) -> Result<(), Failed> {
    let config = Config { matmul_precision: MatmulPrecision::High, shader: Some(EMULATED), ..Config::default() };
    let device = Device::open_with(device, &config)?;
    assert_eq!(device.matmul_precision(), MatmulPrecision::High);
    let (expected, got) = (check(&Device::reference())?, check(&device)?);
    for (which, (expected, got)) in expected.iter().zip(&got).enumerate() {
        let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let gap = expected.iter().zip(got).fold(0.0f64, |most, (e, g)| most.max((e - g).abs()));
        // Each factor of a term is off by at most 2^-11 of itself. Over K terms of either sign that adds up as the sum does, to
        // about 2^-11 of a typical result, of which the largest is a few times larger and the worst error a few times too.
        if gap.is_nan() || gap > largest / 1024.0 {
            return Err(format!("result {which} is off by {gap:.2e}, and its largest is {largest:.2e}").into());
        }
        if gap == 0.0 {
            return Err(format!("result {which} is exact: its product was not of f16").into());
        }
    }
    Ok(())
}

fn random(device: &Device, key: u64, shape: &[usize], size: f32) -> Tensor {
    let random = Philox::new(key);
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(|i| size * random.normal(i)).collect();
    device.tensor(&values, shape)
}

fn layouts(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let mut results = Vec::new();
    for [m, k, n] in [[32, 32, 32], [132, 36, 140], [64, 100, 256], [260, 8, 36]] {
        let a = [random(device, 1, &[m, k], 1.0), random(device, 1, &[k, m], 1.0).transpose()];
        let b = [random(device, 2, &[k, n], 1.0), random(device, 2, &[n, k], 1.0).transpose()];
        results.push(ops::matmul(&a[0], &b[0]).to_vec_f64()?);
        results.push(ops::matmul(&a[0], &b[1]).to_vec_f64()?);
        results.push(ops::matmul(&a[1], &b[0]).to_vec_f64()?);
    }
    let batched = ops::matmul(&random(device, 1, &[3, 1, 36, 40], 1.0), &random(device, 2, &[2, 40, 32], 1.0));
    results.push(batched.to_vec_f64()?);
    Ok(results)
}

fn epilogue(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let [x, weight, bias, residual] =
        [(&[68, 64][..], 1), (&[132, 64], 2), (&[132], 3), (&[68, 132], 4)].map(|(shape, key)| random(device, key, shape, 1.0));
    let epilogue =
        ops::Epilogue { scale: 0.5, bias: Some(&bias), activation: Some(ops::Activation::Silu), residual: Some(&residual) };
    Ok(vec![ops::linear_with(&x, &weight, &epilogue).to_vec_f64()?])
}

fn narrow_weights(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let x = random(device, 1, &[40, 64], 1.0);
    let weight = random(device, 2, &[72, 64], 1.0);
    [DType::F16, DType::BF16].map(|dtype| ops::linear(&x, &ops::cast(&weight, dtype)).to_vec_f64()).into_iter().collect()
}

/// Gradients of 1e-12 would all round to zero in f16, and those of 1e8 overflow.
fn small_gradients(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let mut results = Vec::new();
    for size in [1e-12, 1e8] {
        let x = random(device, 1, &[96, 64], 1.0).requiring_grad();
        let weight = random(device, 2, &[128, 64], 1.0).requiring_grad();
        let gradients = ops::linear(&x, &weight).backward_from(&random(device, 3, &[96, 128], size));
        for leaf in [&x, &weight] {
            results.push(gradients.get(leaf).expect("both are leaves").to_vec_f64()?);
        }
    }
    Ok(results)
}
