//! The device's own ceilings, each measured by a kernel that does nothing else.

use std::time::{Duration, Instant};

use wgtune_engine::device::{Config, MatmulPrecision};
use wgtune_engine::random::Philox;
use wgtune_engine::{Device, Result, Tensor, ops};

use super::measure::repeat;
use super::results::{Ceilings, DeviceUnderTest};
use super::workload::normal;
use crate::common::Compute;

/// Dispatches whose cost is taken together.
const DISPATCHES: usize = 1000;

/// Measures them on a device that was opened as `compute` says. Each is the best of several tries: nothing but the device itself
/// should limit them.
///
/// # Errors
/// What the device met.
pub fn measure(device: &Device, compute: &Compute, about: &DeviceUnderTest, budget: Duration) -> Result<Ceilings> {
    let [dispatch_seconds, host_seconds, encode_seconds] = dispatch_cost(device, budget)?;
    let on_gpu = |seconds| Some(seconds).filter(|_| !device.is_cpu());
    Ok(Ceilings {
        copy_gigabytes_per_second: copy_bandwidth(device, about, budget)? / 1e9,
        fma_tflops: fma_rate(device, budget)? / 1e12,
        matrix_tflops: matrix_rate(device, compute, budget)?.map(|rate| rate / 1e12),
        dispatch_seconds,
        host_seconds: on_gpu(host_seconds),
        encode_seconds: on_gpu(encode_seconds),
    })
}

/// Bytes a second, read and written, of a copy that fits into no cache.
fn copy_bandwidth(device: &Device, about: &DeviceUnderTest, budget: Duration) -> Result<f64> {
    // Software adapters bind no more than 128 MiB.
    let mebibytes = if about.is_software() { 64 } else { 512 };
    let x = ops::full(device, 1.0, [mebibytes << 18]);
    let bytes = 2 * (mebibytes << 20) as u64;
    Ok(bytes as f64 / fastest(device, budget, || ops::stream(&x))?)
}

/// Operations a second of chains of multiply-adds.
fn fma_rate(device: &Device, budget: Duration) -> Result<f64> {
    let x = ops::full(device, 1.0, [1 << 18]);
    Ok(rate(device, budget, |rounds| ops::multiply_adds(&x, rounds))?.0)
}

/// Operations a second of products of matrices: a library's on the CPU, matrix units' on a GPU that has them.
fn matrix_rate(device: &Device, compute: &Compute, budget: Duration) -> Result<Option<f64>> {
    if device.is_cpu() {
        let side = 1024;
        let x = device.tensor(&normal(Philox::new(0), side * side), [side, side]);
        let flops = 2.0 * (side * side * side) as f64;
        return Ok(Some(flops / fastest(device, budget, || ops::matmul(&x, &x))?));
    }
    // Whatever this run allows: the units are there.
    let config = Config { matmul_precision: MatmulPrecision::High, ..compute.config() };
    let device = Device::open_with(&compute.device, &config)?;
    let has_units = device.matmul_precision() == MatmulPrecision::High;
    for side in [16, 8].into_iter().filter(|_| has_units) {
        let x = device.tensor(&normal(Philox::new(0), 9 * side * side), [9, side, side]);
        let (rate, shader) = rate(&device, budget, |rounds| ops::matrix_products(&x, 1 << 15, rounds))?;
        if shader == format!("matrix_products_{side}") {
            return Ok(Some(rate));
        }
    }
    Ok(None)
}

/// Operations a second of `work` with as many rounds as make it so long that starting it does not count, and its shader.
fn rate(device: &Device, budget: Duration, work: impl Fn(u32) -> Tensor) -> Result<(f64, &'static str)> {
    let mut rounds = 1;
    loop {
        let (_held, spans) = device.profile(|| work(rounds))?;
        let seconds: f64 = spans.iter().map(|span| span.seconds).sum();
        if seconds > 0.1 * budget.as_secs_f64() || rounds >= 4096 {
            let flops: u64 = spans.iter().map(|span| span.cost.flops).sum();
            let shader = spans.last().map_or("", |span| span.shader);
            return Ok((flops as f64 / fastest(device, budget, || work(rounds))?, shader));
        }
        rounds *= 4;
    }
}

/// Seconds of the fastest of several runs, by its kernels alone.
fn fastest(device: &Device, budget: Duration, work: impl Fn() -> Tensor) -> Result<f64> {
    let times = repeat(budget, || {
        let (_held, spans) = device.profile(&work)?;
        Ok(spans.iter().map(|span| span.seconds).sum::<f64>())
    })?;
    Ok(times.into_iter().fold(f64::INFINITY, f64::min))
}

/// Seconds of one small dispatch among many that wait for each other, the host's part of it, and what encoding has of that.
fn dispatch_cost(device: &Device, budget: Duration) -> Result<[f64; 3]> {
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
    Ok([0, 1, 2].map(|part| times.iter().map(|parts| parts[part]).fold(f64::INFINITY, f64::min)))
}
