//! The device's own ceilings, each measured by a kernel that does nothing else.

use std::time::{Duration, Instant};

use wgtune_engine::device::{Config, MatmulPrecision};
use wgtune_engine::random::Philox;
use wgtune_engine::{Device, Result, Tensor, ops};

use super::measure::repeat;
use super::results::{Ceilings, DeviceUnderTest, Spread, Tries};
use super::workload::normal;
use crate::common::Compute;

/// Dispatches whose cost is taken together.
const DISPATCHES: usize = 1000;

/// Measures them on a device that was opened as `compute` says, each several times.
///
/// # Errors
/// What the device met.
pub fn measure(device: &Device, compute: &Compute, about: &DeviceUnderTest, budget: Duration) -> Result<Tries> {
    let dispatches = dispatch_cost(device, budget)?;
    let copies = copies(device, about, budget)?;
    let multiply_adds = multiply_adds(device, budget)?;
    let products = products(device, compute, budget)?;
    let of = |time: fn(&Spread) -> f64| {
        let [dispatch_seconds, host_seconds, encode_seconds] = dispatches.each_ref().map(time);
        let on_gpu = |seconds| Some(seconds).filter(|_| !device.is_cpu());
        let rate = |work: &Work| work.amount / time(&work.seconds);
        Ceilings {
            copy_gigabytes_per_second: rate(&copies) / 1e9,
            fma_tflops: rate(&multiply_adds) / 1e12,
            matrix_tflops: products.as_ref().map(|work| rate(work) / 1e12),
            dispatch_seconds,
            host_seconds: on_gpu(host_seconds),
            encode_seconds: on_gpu(encode_seconds),
        }
    };
    Ok(Tries { median: of(|seconds| seconds.median), fast: of(|seconds| seconds.p10), slow: of(|seconds| seconds.p90) })
}

/// So many bytes or operations, and how long they took.
struct Work {
    amount: f64,
    seconds: Spread,
}

/// A copy that fits into no cache, bytes read and written. Its numbers differ, as those of the ops do: a bus that carries the same bits
/// again and again takes less power, and a memory that compresses moves less.
fn copies(device: &Device, about: &DeviceUnderTest, budget: Duration) -> Result<Work> {
    // Software adapters bind no more than 128 MiB.
    let mebibytes = if about.is_software() { 64 } else { 512 };
    let x = device.tensor(&normal(Philox::new(0), mebibytes << 18), [mebibytes << 18]);
    let amount = (2 * (mebibytes << 20)) as f64;
    Ok(Work { amount, seconds: times(device, budget, || ops::stream(&x))? })
}

/// Chains of multiply-adds, in operations.
fn multiply_adds(device: &Device, budget: Duration) -> Result<Work> {
    let x = device.tensor(&normal(Philox::new(0), 1 << 18), [1 << 18]);
    Ok(long_enough(device, budget, |rounds| ops::multiply_adds(&x, rounds))?.0)
}

/// Products of matrices, in operations: a library's on the CPU, matrix units' on a GPU that has them.
fn products(device: &Device, compute: &Compute, budget: Duration) -> Result<Option<Work>> {
    if device.is_cpu() {
        let side = 1024;
        let x = device.tensor(&normal(Philox::new(0), side * side), [side, side]);
        let amount = 2.0 * (side * side * side) as f64;
        return Ok(Some(Work { amount, seconds: times(device, budget, || ops::matmul(&x, &x))? }));
    }
    // Whatever this run allows: the units are there.
    let config = Config { matmul_precision: MatmulPrecision::High, ..compute.config() };
    let device = Device::open_with(&compute.device, &config)?;
    let has_units = device.matmul_precision() == MatmulPrecision::High;
    for side in [16, 8].into_iter().filter(|_| has_units) {
        let x = device.tensor(&normal(Philox::new(0), 9 * side * side), [9, side, side]);
        let (work, shader) = long_enough(&device, budget, |rounds| ops::matrix_products(&x, 1 << 15, rounds))?;
        if shader == format!("matrix_products_{side}") {
            return Ok(Some(work));
        }
    }
    Ok(None)
}

/// `work` with as many rounds as make it so long that starting it does not count, in operations, and its shader.
fn long_enough(device: &Device, budget: Duration, work: impl Fn(u32) -> Tensor) -> Result<(Work, &'static str)> {
    let mut rounds = 1;
    loop {
        let (_held, spans) = device.profile(|| work(rounds))?;
        let seconds: f64 = spans.iter().map(|span| span.seconds).sum();
        if seconds > 0.1 * budget.as_secs_f64() || rounds >= 4096 {
            let amount = spans.iter().map(|span| span.cost.flops).sum::<u64>() as f64;
            let shader = spans.last().map_or("", |span| span.shader);
            return Ok((Work { amount, seconds: times(device, budget, || work(rounds))? }, shader));
        }
        rounds *= 4;
    }
}

/// Seconds of several runs, by their kernels alone.
fn times(device: &Device, budget: Duration, work: impl Fn() -> Tensor) -> Result<Spread> {
    let times = repeat(budget, || {
        let (_held, spans) = device.profile(&work)?;
        Ok(spans.iter().map(|span| span.seconds).sum::<f64>())
    })?;
    Ok(Spread::of(&times))
}

/// Seconds of one small dispatch among many that wait for each other, the host's part of it, and what encoding has of that.
fn dispatch_cost(device: &Device, budget: Duration) -> Result<[Spread; 3]> {
    let x = ops::full(device, 1.0, [4]);
    let times = repeat(budget, || {
        device.wait()?;
        let encoded_before = device.encoding_time();
        let begun = Instant::now();
        let last = (0..DISPATCHES).fold(x.clone(), |x, _| ops::stream(&x));
        device.flush()?;
        let host = begun.elapsed();
        let encoding = device.encoding_time() - encoded_before;
        device.wait()?;
        drop(last);
        Ok([begun.elapsed(), host, encoding].map(|time| time.as_secs_f64() / DISPATCHES as f64))
    })?;
    Ok([0, 1, 2].map(|part| Spread::of(&times.iter().map(|parts| parts[part]).collect::<Vec<_>>())))
}
