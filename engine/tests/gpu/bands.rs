//! Tensors past what a kernel can be given at once.

use libtest_mimic::Failed;
use wgtune_engine::device::{Config, MatmulPrecision};
use wgtune_engine::optim::{AdamW, AdamWConfig, Parameter, Parameters, Sgd};
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, ops};

/// Of rows of 64, 256 in f32 and 512 in half of that can be bound.
fn limited() -> Config {
    Config { binding_limit: Some(256 * 64 * 4), ..Config::default() }
}

fn normal(key: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|at| Philox::new(key).normal(at)).collect()
}

/// Holds results to so many roundings of the largest element.
fn close(expected: &[Vec<f32>], got: &[Vec<f32>], roundings: f32, of: &str) {
    for (which, (expected, got)) in expected.iter().zip(got).enumerate() {
        let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        let bound = f32::EPSILON * roundings * largest;
        let off = expected
            .iter()
            .zip(got)
            .find(|(expected, got)| (*expected - *got).abs().partial_cmp(&bound).is_none_or(|order| order.is_gt()));
        assert!(expected.len() == got.len() && off.is_none(), "{of}: {off:?} in result {which}, {bound} allowed between them");
    }
}

pub fn reads(name: &str) -> Result<(), Failed> {
    let config = limited();
    let limited = Device::open_with(name, &config)?;
    for (dtype, classes) in [(DType::F32, 1000), (DType::BF16, 1000), (DType::F32, 130)] {
        let results = |device: &Device| -> Result<Vec<Vec<f32>>, Failed> {
            let random = |key: u64, shape: [usize; 2]| device.tensor(&normal(key, shape[0] * shape[1]), shape);
            let weight = ops::cast(&random(0, [classes, 64]), dtype);
            let hidden = random(7777, [9, 64]).requiring_grad();
            let targets = device.tensor_u32(&(0..9).map(|row| row * 113 % classes as u32).collect::<Vec<_>>(), [9]);
            let one = hidden.detach().slice(0, 3..4);
            let losses = ops::log_probs(&hidden, &weight, &targets, 1.0);
            let gradient = ops::sum(&losses.log_probs).backward();
            let tensors = [
                ops::gather(&weight, &targets),
                ops::linear(&hidden.detach(), &weight),
                ops::linear(&one, &weight),
                ops::linear_cross_entropy(&hidden, &weight, &targets).loss,
                losses.log_probs.clone(),
                gradient.get(&hidden).ok_or("expected a gradient")?.clone(),
            ];
            Ok(tensors.iter().map(|tensor| tensor.to_vec()).collect::<Result<_, _>>()?)
        };
        let (expected, got) = (results(&Device::reference())?, results(&limited)?);
        // Sums of 64 products, and in the gradient of as many as there are classes.
        close(&expected, &got, 16.0 + 4.0 * (classes as f32).sqrt(), &format!("{dtype} {classes}"));
    }
    let [whole, banded] = [None, config.binding_limit].map(|binding_limit| -> Result<Vec<f32>, Failed> {
        let config = Config { binding_limit, matmul_precision: MatmulPrecision::High, ..Config::default() };
        let device = Device::open_with(name, &config)?;
        let (hidden, weight) = (device.tensor(&normal(1, 40 * 64), [40, 64]), normal(2, 300 * 64));
        let weight = bytemuck::cast_slice(&weight).to_vec();
        let weight = device.tensor_of_bytes(std::sync::Arc::new(weight), DType::F32, [300, 64]);
        Ok(ops::linear(&hidden, &weight).to_vec()?)
    });
    for (whole, banded) in whole?.into_iter().zip(banded?) {
        // Sums of 64 products of numbers rounded to f16, or, where there is none, not: of the size of 8.
        assert!((whole - banded).abs() < 8.0 / 256.0, "{whole} and {banded}");
    }
    Ok(())
}

pub fn writes(name: &str) -> Result<(), Failed> {
    let whole = Device::open_with(name, &Config { no_fusion: true, ..Config::default() })?;
    let limited = Device::open_with(name, &limited())?;
    let (expected, got) = (gradients(&Device::reference())?, gradients(&limited)?);
    // Sums of up to 64 products, of probabilities that come from as many.
    close(&expected, &got, 64.0, "gradients");
    // The sums of squares are of the same parts, and each element comes from one.
    assert_eq!(steps(&whole)?, steps(&limited)?);
    let message = ops::softmax(&limited.zeros([257, 64])).to_vec().unwrap_err().to_string();
    assert!(message.contains("a tensor of 65792 bytes") && message.contains("at most 65536 bytes"), "{message}");
    Ok(())
}

/// Gradients of a table of 1,000 rows, by the ways in which models train one: its rows are taken, and what is made of them is
/// multiplied by it; of two batches, too.
fn gradients(device: &Device) -> Result<Vec<Vec<f32>>, Failed> {
    let table = device.tensor(&normal(1, 1000 * 64), [1000, 64]).requiring_grad();
    let indices =
        |step: u32, count: u32| device.tensor_u32(&(0..count).map(|row| row * step % 1000).collect::<Vec<_>>(), [count as usize]);
    let batch = |step: u32| {
        let hidden = ops::scale(&ops::gather(&table, &indices(step, 9)), 0.1);
        ops::linear_cross_entropy(&hidden, &table, &indices(step + 4, 9)).loss.backward()
    };
    let mut tied = batch(113);
    tied.accumulate(batch(117));
    let updated = {
        let [b, a] = [(2, [1000, 8]), (3, [8, 64])].map(|(key, shape)| device.tensor(&normal(key, shape[0] * shape[1]), shape));
        let epilogue = ops::Epilogue { scale: 2.0, residual: Some(&table.detach()), ..Default::default() };
        ops::matmul_with(&b, &a, &epilogue)
    };
    // As the logits of further rows add theirs.
    let sum = device.zeros([1000, 64]);
    for key in [4, 6] {
        let [logits, hidden] =
            [(key, 1000), (key + 1, 64)].map(|(key, width)| device.tensor(&normal(key, 16 * width), [16, width]));
        ops::matmul_accumulate(&sum, &logits.transpose(), &hidden, 0.5);
    }
    let tied = tied.get(&table).ok_or("expected a gradient")?.clone();
    Ok([tied, updated, sum].iter().map(Tensor::to_vec).collect::<Result<_, _>>()?)
}

/// What optimisers make of a table of 1,000 rows and of a vector by its side, and what becomes of such a table element by element.
fn steps(device: &Device) -> Result<Vec<Vec<f32>>, Failed> {
    let tensor = |key: u64, shape: &[usize]| device.tensor(&normal(key, shape.iter().product()), shape);
    let shapes: [&[usize]; 2] = [&[1000, 64], &[64]];
    let tensors: Vec<Tensor> = (0..).zip(shapes).map(|(key, shape)| tensor(key, shape)).collect();
    let parameter = |tensor: &Tensor| Parameter { name: "x".into(), tensor: tensor.clone(), weight_decay: 0.1, rate: 1.0 };
    let parameters = Parameters::gather(tensors.iter().map(parameter));
    let (mut adamw, mut sgd) = (AdamW::new(AdamWConfig::default(), &parameters), Sgd::new(0.9, &parameters));
    let mut results = Vec::new();
    for step in 0..2 {
        let gradients: Vec<Tensor> = (0..).zip(shapes).map(|(key, shape)| tensor(10 + 2 * step + key, shape)).collect();
        let gradients = parameters.joined(&gradients.iter().collect::<Vec<_>>());
        let norm = gradients.norm();
        let scale = ops::clip_scale(&norm, 1.0);
        adamw.step(&parameters, &gradients, 0.1, Some(&scale));
        sgd.step(&parameters, &gradients, 0.1, Some(&scale));
        results.push(norm);
    }
    results.extend(adamw.moments(&parameters).into_iter().flat_map(|moments| [moments.mean, moments.square]));
    results.extend(sgd.velocities(&parameters));
    let table = &tensors[0];
    let dropped = ops::dropout(&ops::mul(&ops::exp(table), &results[0]), Philox::new(5), 0.5);
    results.extend([ops::cast(&ops::cast(table, DType::BF16), DType::F32), ops::copy(table), ops::add(&dropped, table)]);
    results.extend(tensors);
    Ok(results.iter().map(Tensor::to_vec).collect::<Result<_, _>>()?)
}
