//! Random programs: what ops leave behind in any order, with fan-out, views, parts that are written in place, and tensors that end
//! early.

use wgtune_engine::random::Philox;
use wgtune_engine::{Device, Result, Tensor, ops};

/// Rows and columns of every tensor: whole vectors, and more than one of what tiles and subgroups take.
const SHAPE: [usize; 2] = [24, 40];
/// Tensors that are alive at once.
const ALIVE: usize = 6;
/// Ops of a program.
const STEPS: u64 = 40;

/// What the program of this seed leaves: every tensor that is alive at its end, and the gradient of a leaf.
pub fn run(device: &Device, seed: u64) -> Result<Vec<Vec<f32>>> {
    let random = Philox::new(seed);
    let pick = |step: u64, which: u64, below: usize| random.stream(step).word(which) as usize % below;
    let normal = |stream: u64, shape: [usize; 2]| {
        let values: Vec<f32> = (0..(shape[0] * shape[1]) as u64).map(|i| random.stream(1000 + stream).normal(i)).collect();
        device.tensor(&values, shape)
    };
    let leaf = normal(0, SHAPE).requiring_grad();
    let square = ops::scale(&normal(1, [SHAPE[1], SHAPE[1]]), 0.15);
    let weight = normal(2, [1, SHAPE[1]]).reshape([SHAPE[1]]);
    let mut alive = vec![leaf.clone(), normal(3, SHAPE)];
    for step in 0..STEPS {
        let [x, y] = [1, 2].map(|which| alive[pick(step, which, alive.len())].clone());
        let next = match pick(step, 0, 12) {
            0 => ops::add(&x, &y),
            1 => ops::mul(&ops::tanh(&x), &y),
            2 => ops::sub(&ops::scale(&x, 0.5), &y),
            3 => ops::add(&ops::matmul(&x, &square), &y),
            4 => ops::add(&ops::dropout(&ops::matmul(&x, &square), random.stream(step), 0.25), &y),
            5 => ops::dropout(&ops::rms_norm(&x, &weight, 1e-2), random.stream(step), 0.25),
            6 => ops::swiglu(&ops::tanh(&x), &y),
            7 => ops::cat(&[&x.slice(0, 8..24), &y.slice(0, 0..8)], 0),
            8 => ops::silu(&x.transpose().reshape([SHAPE[1], SHAPE[0]]).transpose()),
            9 => ops::softmax(&ops::add(&x, &y)),
            10 => {
                // Written in place: nothing on the tape may need it, so it goes on without.
                let target = ops::copy(&x.detach()).reshape([1, SHAPE[0], SHAPE[1]]);
                let rows = y.detach().slice(0, 3..10).reshape([1, 7, SHAPE[1]]);
                let length = 7 + pick(step, 3, SHAPE[0] - 7) as u32;
                let pages = ops::Pages { table: device.tensor_u32(&[0], [1, 1]), lengths: device.tensor_u32(&[length], [1]) };
                ops::write_pages(&target, &rows, &pages);
                target.reshape(SHAPE)
            }
            _ => ops::gelu(&ops::sub(&x, &y)),
        };
        // Values stay near 1, so that rounding does.
        let next = ops::tanh(&next);
        if alive.len() == ALIVE {
            alive.remove(pick(step, 4, ALIVE));
        }
        alive.push(next);
        if pick(step, 5, 9) == 0 {
            device.flush()?;
        }
    }
    let mut left: Vec<Vec<f32>> = alive.iter().map(Tensor::to_vec).collect::<Result<_>>()?;
    let sum = alive.iter().map(|x| ops::sum(&ops::mul(x, x))).reduce(|sum, x| ops::add(&sum, &x)).expect("some are alive");
    let loss = ops::add(&sum, &ops::sum(&leaf));
    left.push(loss.backward().get(&leaf).expect("the loss depends on it").to_vec()?);
    Ok(left)
}

/// Panics where two outcomes differ by more than some roundings of numbers near 1, which forty steps pass on.
pub fn compare(seed: u64, expected: &[Vec<f32>], got: &[Vec<f32>]) {
    for (which, (expected, got)) in expected.iter().zip(got).enumerate() {
        let largest = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
        for (at, (e, g)) in expected.iter().zip(got).enumerate() {
            assert!((e - g).abs() <= 1e-3 * largest, "program {seed}: expected {e} at {at} of result {which}, got {g}");
        }
    }
}
