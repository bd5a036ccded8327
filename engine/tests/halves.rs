//! Products and attention of f16 operands against f64: on matrix units where an adapter has them, and in emulation elsewhere, which
//! runs all of the same kernel but the units themselves.

use libtest_mimic::{Arguments, Failed, Trial};
use wgtune_engine::device::{Config, MatmulPrecision, adapters};
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, ops, testing};

/// The shader that emulates matrix units: the last of products, and so of any kernel that has fewer.
const EMULATED: usize = 13;

fn main() {
    let arguments = Arguments::from_args();
    let mut all = Vec::new();
    for (index, adapter) in adapters().iter().enumerate() {
        for (name, check, products) in CHECKS {
            let device = format!("gpu:{index}");
            let trial =
                Trial::test(format!("{} ({}): {name}", adapter.name, adapter.backend), move || run(&device, check, products));
            all.push(trial.with_ignored_flag(!adapter.features.f16));
        }
    }
    if all.is_empty() {
        all.push(Trial::test("products of f16 (no adapter found)", || Ok(())).with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, all).exit();
}

type Check = fn(&Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error>;

/// Name, check, and how many products there are in a row: a gradient of attention has scores, their gradients, and what those weigh.
const CHECKS: [(&str, Check, f64); 14] = [
    ("every layout and edge", layouts, 1.0),
    ("an epilogue", epilogue, 1.0),
    ("a weight stored in half the bits", narrow_weights, 1.0),
    ("gradients far below f16's range", small_gradients, 1.0),
    ("operands outside f16's range", large_operands, 1.0),
    ("operands that lie in larger tensors", views, 1.0),
    ("operands that are written in between", written_between, 1.0),
    ("an operand that outlives what failed", after_a_failure, 1.0),
    ("rows and columns that are no numbers leave others alone", no_numbers, 1.0),
    ("attention of every head dimension", head_dimensions, 3.0),
    ("attention of every edge", edges, 3.0),
    ("attention by every mask", masks, 3.0),
    ("attention in parts", attention_in_parts, 3.0),
    ("attention with gradients outside f16's range", attention_gradients, 3.0),
];

fn run(device: &str, check: Check, products: f64) -> Result<(), Failed> {
    let config = Config {
        matmul_precision: MatmulPrecision::High,
        shader: Some(EMULATED),
        memory_limit: Some(MEMORY),
        ..Config::default()
    };
    let device = Device::open_with(device, &config)?;
    assert_eq!(device.matmul_precision(), MatmulPrecision::High);
    let (expected, got) = (check(&Device::reference())?, check(&device)?);
    for (which, (expected, got)) in expected.iter().zip(&got).enumerate() {
        let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let gap = expected.iter().zip(got).fold(0.0f64, |most, (e, g)| most.max((e - g).abs()));
        // Each factor of a term is off by at most 2^-11 of itself. Over K terms of either sign that adds up as the sum does, to
        // about 2^-11 of a typical result, of which the largest is a few times larger and the worst error a few times too. Each
        // product that the result is made of adds as much.
        if !got.iter().all(|value| value.is_finite()) {
            return Err(format!("result {which} is not finite").into());
        }
        if gap > products * largest / 1024.0 {
            return Err(format!("result {which} is off by {gap:.2e}, and its largest is {largest:.2e}").into());
        }
        if gap < largest / 262_144.0 {
            return Err(format!("result {which} is off by {gap:.2e} only, for {largest:.2e}: it was not of f16").into());
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

/// Both operands, f32 and bf16, larger and smaller than f16, and one of each; and few columns of many rows, which adapters on the CPU turn.
fn large_operands(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let mut results = Vec::new();
    for [left, right] in [[1e6; 2], [65_520.0; 2], [1e-9; 2], [1e30, 1e-30]] {
        let x = random(device, 1, &[96, 64], left);
        for outputs in [128, 32] {
            let weight = random(device, 2, &[outputs, 64], right);
            results.push(ops::linear(&x, &weight).to_vec_f64()?);
            results.push(ops::linear(&x, &ops::cast(&weight, DType::BF16)).to_vec_f64()?);
        }
    }
    Ok(results)
}

/// A row of an operand, and a column of the other.
fn no_numbers(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let with_row = |key, value: f32| {
        let rows = random(device, key, &[63, 64], 1e-3);
        ops::cat(&[&ops::full(device, value, [1, 64]), &rows], 0)
    };
    let mut results = Vec::new();
    for value in [f32::INFINITY, f32::NAN] {
        let (x, weight) = (with_row(1, value), with_row(2, value));
        for weight in [weight.clone(), ops::cast(&weight, DType::BF16)] {
            results.push(ops::linear(&x, &weight).slice(0, 1..64).slice(1, 1..64).to_vec_f64()?);
        }
    }
    Ok(results)
}

/// Columns and rows of a tensor, a little of one, and one that is both sides.
fn views(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let [x, weight, all] = [(1, [40, 72]), (2, [72, 96]), (3, [640, 64])].map(|(key, shape)| random(device, key, &shape, 1.0));
    let few = all.slice(0, 323..363);
    let products = [
        ops::matmul(&x.slice(1, 4..68), &weight.slice(0, 4..68)),
        ops::matmul(&few, &weight.slice(0, 7..71)),
        ops::matmul(&all.slice(0, 600..640), &few.transpose()),
        ops::matmul(&all.transpose(), &all),
    ];
    products.iter().map(Tensor::to_vec_f64).collect()
}

/// In one recording, once from the host and once by a product that adds to it.
fn written_between(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let [x, weight] = [1, 2].map(|key| random(device, key, &[64, 64], 1.0));
    let first = ops::matmul(&x, &weight);
    weight.replace(&[0x3f; 4 * 64 * 64]);
    let second = ops::matmul(&x, &weight);
    ops::matmul_accumulate(&weight, &x, &x, 2.0);
    let third = ops::matmul(&x, &weight);
    [first, second, third].iter().map(Tensor::to_vec_f64).collect()
}

/// Bytes that the device may take.
const MEMORY: u64 = 64 << 20;

/// What was found of operands in a recording that failed, or before it, is found again.
fn after_a_failure(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let [x, weight] = [1, 2].map(|key| random(device, key, &[64, 64], 1e6));
    let before = ops::linear(&x, &weight).to_vec_f64()?;
    if device.matmul_precision() == MatmulPrecision::High {
        let lost = [ops::linear(&weight, &x), device.zeros([MEMORY as usize / 4])];
        assert!(device.flush().is_err());
        drop(lost);
    }
    x.replace(&[0x3f; 4 * 64 * 64]);
    Ok(vec![before, ops::linear(&x, &weight).to_vec_f64()?, ops::linear(&weight, &weight).to_vec_f64()?])
}

/// What attention is run on: [B, T, H, D] over so many keys of so many heads.
#[derive(Clone, Copy)]
struct Sizes {
    query: [usize; 4],
    keys: usize,
    key_heads: usize,
}

/// The output, then the gradients of query, key and value, for a gradient of the output of this size.
fn attention(device: &Device, sizes: Sizes, mask: &ops::Mask, size: f32) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let Sizes { query: [batch, _, _, dim], keys, key_heads } = sizes;
    let shape = [batch, keys, key_heads, dim];
    let leaves = [(1, sizes.query), (2, shape), (3, shape)].map(|(key, shape)| random(device, key, &shape, 1.0).requiring_grad());
    let output = ops::attention(&leaves[0], &leaves[1], &leaves[2], mask);
    let gradients = output.backward_from(&random(device, 4, &sizes.query, size));
    let gradients = leaves.iter().map(|leaf| gradients.get(leaf).expect("all are leaves").to_vec_f64());
    std::iter::once(output.to_vec_f64()).chain(gradients).collect()
}

fn causal() -> ops::Mask {
    ops::Mask { causal: true, ..ops::Mask::default() }
}

fn head_dimensions(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let of = |dim| attention(device, Sizes { query: [2, 70, 2, dim], keys: 70, key_heads: 1 }, &causal(), 1.0);
    // The other checks have 16 and 64.
    Ok([of(48)?, of(128)?].concat())
}

fn edges(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let of = |queries, keys, mask| attention(device, Sizes { query: [1, queries, 2, 16], keys, key_heads: 2 }, &mask, 1.0);
    let (full, cached) = (ops::Mask::default, || ops::Mask { start: 40, ..causal() });
    let full = [of(1, 65, full())?, of(63, 31, full())?, of(65, 33, full())?, of(100, 2, full())?];
    Ok([full.concat(), of(1, 64, cached())?, of(5, 130, cached())?].concat())
}

fn masks(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let of = |mask| attention(device, Sizes { query: [2, 70, 6, 16], keys: 70, key_heads: 2 }, &mask, 1.0);
    let lengths = |each: [u32; 2]| Some(device.tensor_u32(&each, [2]));
    // In one row of the batch segments of 31, in the other one of 64 and what is left.
    let segments: Vec<u32> = (0..70).map(|at| at / 31).chain((0..70).map(|at| at / 64)).collect();
    let masks = [
        ops::Mask { prefix: 33, ..causal() },
        ops::Mask { window: Some(24), ..causal() },
        ops::Mask { window: Some(3), ..ops::Mask::default() },
        ops::Mask { prefix: 20, window: Some(9), ..causal() },
        ops::Mask { lengths: lengths([66, 0]), ..ops::Mask::default() },
        ops::Mask { lengths: lengths([12, 70]), prefix: 30, ..causal() },
        ops::Mask { segments: Some(device.tensor_u32(&segments, [2, 70])), ..causal() },
    ];
    let results: Result<Vec<_>, _> = masks.into_iter().map(of).collect();
    Ok(results?.concat())
}

/// As a GPU takes few queries over many keys, and the gradients of few keys.
fn attention_in_parts(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let (query, keys) = ([2, 130, 4, 16], [2, 70, 2, 16]);
    let leaves = [(1, query), (2, keys), (3, keys)].map(|(key, shape)| random(device, key, &shape, 1.0).requiring_grad());
    let mask = ops::Mask { window: Some(50), lengths: Some(device.tensor_u32(&[70, 33], [2])), ..ops::Mask::default() };
    let output = testing::attention_in_parts(&leaves[0], &leaves[1], &leaves[2], &mask, [2, 3]);
    let gradients = output.backward_from(&random(device, 4, &query, 1.0));
    leaves.iter().map(|leaf| gradients.get(leaf).expect("all are leaves").to_vec_f64()).collect()
}

/// As [`small_gradients`], and one of zeros, whose scale must not become infinite.
fn attention_gradients(device: &Device) -> Result<Vec<Vec<f64>>, wgtune_engine::Error> {
    let of = |size| attention(device, Sizes { query: [1, 100, 2, 64], keys: 100, key_heads: 1 }, &causal(), size);
    Ok([of(1e-12)?, of(1e8)?, of(0.0)?].concat())
}
