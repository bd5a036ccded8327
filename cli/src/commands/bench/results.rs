//! What a run of the bench comes to: the document that `--json` prints and `--compare` reads.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wgtune_engine::Device;
use wgtune_engine::device::{AdapterInfo, MatmulPrecision, Span, adapters};
use wgtune_models::error::{Error, Result};
use wgtune_models::formats::files::read_text;

use super::check::Checked;
use super::sensors::GpuState;

/// All figures of a run. Seconds are seconds, rates are per second, and giga and tera are powers of 1000.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The program's version.
    pub wgtune: String,
    pub device: DeviceUnderTest,
    /// What everything is held against: medians, from before the rest.
    pub ceilings: Ceilings,
    /// The same with their spread, from before the rest and from after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceilings_before: Option<Tries>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceilings_after: Option<Tries>,
    /// Of the rates among them, how far the one that changed most went from before to after, as a share of before.
    #[serde(default)]
    pub ceilings_drift: Option<f64>,
    /// The GPU's clock and power meanwhile.
    #[serde(default)]
    pub gpu: GpuState,
    pub results: Vec<Measurement>,
    /// What could not be measured, and why.
    pub left_out: Vec<LeftOut>,
    /// What came to nothing or to something wrong, and how: such a run of the bench has failed.
    #[serde(default)]
    pub faults: Vec<LeftOut>,
}

/// What the figures were measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceUnderTest {
    pub name: String,
    /// `cpu`, or what the adapter says of itself: `discrete`, `integrated`, `virtual`, `software`, `other`.
    pub kind: String,
    /// The driver and its version; empty for the CPU.
    pub driver: String,
    /// Whose clock timed the ops: `device` or `host`.
    pub clock: String,
    /// What products of matrices round their operands to: `highest` is f32, `high` f16.
    pub matmul_precision: MatmulPrecision,
}

/// Ceilings that were measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tries {
    pub median: Ceilings,
    /// A tenth of the tries were faster.
    pub fast: Ceilings,
    /// A tenth of the tries were slower.
    pub slow: Ceilings,
}

/// What the device does in kernels that do nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// A copy of a large tensor, bytes read and written counted.
    pub copy_gigabytes_per_second: f64,
    /// Multiply-adds in f32, each counted as two operations.
    pub fma_tflops: f64,
    /// Products of matrices alone: cooperative matrices of f16 with f32 sums on a GPU that has them, the `gemm` crate on the CPU.
    pub matrix_tflops: Option<f64>,
    /// One small dispatch that waits for the one before it.
    pub dispatch_seconds: f64,
    /// The host's part of that: recording, rewriting and encoding. The CPU backend encodes nothing.
    pub host_seconds: Option<f64>,
    /// Encoding and submission alone.
    pub encode_seconds: Option<f64>,
}

/// One thing that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// What it is called: unique together with model, shape and direction.
    pub name: String,
    /// The entry of the engine's list of ops that it belongs to; `step` for a whole step.
    pub op: String,
    /// Whose shapes these are.
    pub model: String,
    pub shape: String,
    pub direction: Direction,
    pub seconds: Spread,
    /// Times it was run after warming up.
    pub repetitions: usize,
    /// Kernels that one run starts.
    pub dispatches: usize,
    /// The shaders that ran, each once.
    pub shaders: Vec<String>,
    pub flops: u64,
    /// Bytes that must pass through memory: each input of each kernel once, each output once.
    pub bytes: u64,
    pub tflops: f64,
    pub gigabytes_per_second: f64,
    pub bound: Bound,
    /// The time that it would take at the ceilings, over the time that it took.
    pub share: f64,
    /// The largest difference from the same in f64, relative to the largest value of each result.
    pub error: Option<f64>,
    /// Of which elements of which run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_of: Option<Checked>,
    /// Elements that were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_elements: Option<u64>,
    /// The shape at which the error was taken, where not at that of the times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_shape: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Of a step, the sum of its dispatches' own times, from a run of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_seconds: Option<f64>,
    /// Of a step, the share of its time in which the device computed nothing: 1 - kernels / step, or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_share: Option<f64>,
    /// Bytes of device memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_tensor_bytes: Option<u64>,
}

/// Which way through an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Forward,
    Backward,
    /// Forward and backward in one.
    Both,
}

/// The distribution of times in seconds, or of what a field's name says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    /// A tenth were less: of times, faster.
    pub p10: f64,
    /// A tenth were more.
    pub p90: f64,
}

/// Which ceiling is the lower one for a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    Arithmetic,
    Memory,
}

/// Something that was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    pub name: String,
    pub reason: String,
}

/// Reads what this command printed.
pub fn open<T: DeserializeOwned>(path: &Path, command: &str) -> Result<T> {
    serde_json::from_str(&read_text(path)?).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            let message = format!("{}: expected what `{command}` prints, but {error}", path.display());
            Error::Data { message }
        }
        _ => Error::Json { path: path.into(), line: error.line(), column: error.column(), message: error.to_string() },
    })
}

impl Results {
    /// Reads what `--json` printed.
    pub fn open(path: &Path) -> Result<Results> {
        open(path, "wgtune bench --json")
    }

    /// An error that names what came to nothing or to something wrong.
    pub fn verdict(&self) -> Result<()> {
        let Some(first) = self.faults.first() else { return Ok(()) };
        let more = if self.faults.len() > 1 { format!(", and {} more", self.faults.len() - 1) } else { String::new() };
        Err(Error::Data { message: format!("{} {}{more}", first.name, first.reason) })
    }
}

impl DeviceUnderTest {
    /// What there is to say of a device.
    pub fn of(device: &Device) -> DeviceUnderTest {
        let is_this = |adapter: &AdapterInfo| format!("{} ({})", adapter.name, adapter.backend) == device.name();
        let adapter = adapters().into_iter().find(is_this).filter(|_| !device.is_cpu());
        let has_timestamps = adapter.as_ref().is_some_and(|adapter| adapter.features.timestamps);
        DeviceUnderTest {
            name: device.name().to_string(),
            kind: adapter.as_ref().map_or("cpu", |adapter| adapter.device_type).to_string(),
            driver: adapter.map_or(String::new(), |adapter| format!("{} {}", adapter.driver, adapter.driver_info).trim().into()),
            matmul_precision: device.matmul_precision(),
            clock: if has_timestamps { "device" } else { "host" }.to_string(),
        }
    }

    /// Whether it computes on the CPU, be it through a driver.
    pub fn is_software(&self) -> bool {
        self.kind == "cpu" || self.kind == "software"
    }
}

impl Ceilings {
    /// The rate that changed most from these to others: its name, and by which share of these.
    pub fn drift(&self, after: &Ceilings) -> (&'static str, f64) {
        let matrices = self.matrix_tflops.zip(after.matrix_tflops);
        let rates = [
            ("copy", Some((self.copy_gigabytes_per_second, after.copy_gigabytes_per_second))),
            ("multiply-adds", Some((self.fma_tflops, after.fma_tflops))),
            ("products of matrices", matrices),
        ];
        let drifts = rates.into_iter().filter_map(|(name, rates)| rates.map(|(before, after)| (name, after / before - 1.0)));
        drifts.max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs())).unwrap_or(("copy", 0.0))
    }

    /// Operations a second of f32 arithmetic, as fast as it gets.
    fn flops_per_second(&self, shader: &str) -> f64 {
        let on_matrices = shader == "twin" || shader.contains("matrix_16") || shader.contains("matrix_8");
        let matrix = self.matrix_tflops.filter(|_| on_matrices).unwrap_or(0.0);
        1e12 * self.fma_tflops.max(matrix)
    }

    /// Seconds of a dispatch at these ceilings, by arithmetic and by memory.
    pub fn seconds(&self, span: &Span) -> [f64; 2] {
        let arithmetic = span.cost.flops as f64 / self.flops_per_second(span.shader);
        [arithmetic, span.cost.bytes as f64 / (1e9 * self.copy_gigabytes_per_second)]
    }
}

impl Measurement {
    /// The figures that follow from the times and from one run's dispatches. What it is called is still to be filled in.
    pub fn new(times: &[f64], spans: &[Span], ceilings: &Ceilings) -> Measurement {
        let seconds = Spread::of(times);
        let flops = spans.iter().map(|span| span.cost.flops).sum::<u64>();
        let bytes = spans.iter().map(|span| span.cost.bytes).sum::<u64>();
        // Kernels run one after the other: each has a lower ceiling of its own, and the times at them add up.
        let limits: Vec<[f64; 2]> = spans.iter().map(|span| ceilings.seconds(span)).collect();
        let limited = |by: usize| limits.iter().filter(|limit| limit[by] >= limit[1 - by]).map(|limit| limit[by]).sum::<f64>();
        let (arithmetic, all) = (limited(0), limits.iter().map(|[a, m]| a.max(*m)).sum::<f64>());
        let mut shaders: Vec<String> = spans.iter().map(|span| span.shader.to_string()).collect();
        shaders.sort();
        shaders.dedup();
        Measurement {
            name: String::new(),
            op: String::new(),
            model: String::new(),
            shape: String::new(),
            direction: Direction::Forward,
            seconds,
            repetitions: times.len(),
            dispatches: spans.len(),
            shaders,
            flops,
            bytes,
            tflops: flops as f64 / seconds.median / 1e12,
            gigabytes_per_second: bytes as f64 / seconds.median / 1e9,
            bound: if arithmetic > all / 2.0 { Bound::Arithmetic } else { Bound::Memory },
            share: all / seconds.median,
            error: None,
            error_of: None,
            error_elements: None,
            error_shape: None,
            tokens_per_second: None,
            kernel_seconds: None,
            idle_share: None,
            peak_tensor_bytes: None,
        }
    }

    /// What `--filter` looks at, and what a reader is told.
    pub fn title(&self) -> String {
        title(&self.model, &self.name, &self.shape, self.direction)
    }
}

/// A measurement's name in full.
pub fn title(model: &str, name: &str, shape: &str, direction: Direction) -> String {
    format!("{model} {name} {direction} [{shape}]")
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
            Direction::Both => "both",
        })
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bound::Arithmetic => "arithmetic",
            Bound::Memory => "memory",
        })
    }
}

impl Spread {
    /// Of at least one time.
    pub fn of(times: &[f64]) -> Spread {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        Spread { median: at(0.5), p10: at(0.1), p90: at(0.9) }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use wgtune_engine::kernel::Cost;

    pub const CEILINGS: Ceilings = Ceilings {
        copy_gigabytes_per_second: 100.0,
        fma_tflops: 1.0,
        matrix_tflops: None,
        dispatch_seconds: 1e-5,
        host_seconds: Some(1.5e-6),
        encode_seconds: Some(1e-6),
    };

    #[test]
    fn the_share_is_the_time_at_the_lower_ceiling_of_each_kernel_over_the_time() {
        let span = |flops: u64, bytes: u64| Span {
            kernel: "k",
            shader: "k",
            params: String::new(),
            start: 0.0,
            seconds: 1.0,
            cost: Cost { flops, bytes },
        };
        // 2 ms of arithmetic, then 1 ms of memory.
        let spans = [span(2_000_000_000, 1000), span(1000, 100_000_000)];
        let measured = Measurement::new(&[0.004, 0.006, 0.006, 0.9], &spans, &CEILINGS);
        assert_eq!(measured.seconds.median, 0.006);
        assert!((measured.share - 0.5).abs() < 1e-12, "{measured:?}");
        assert_eq!((measured.bound, measured.dispatches), (Bound::Arithmetic, 2));
        assert_eq!(measured.shaders, ["k"]);
        assert_eq!(Measurement::new(&[0.1], &spans[1..], &CEILINGS).bound, Bound::Memory);
    }

    #[test]
    fn the_rate_that_changed_most_is_told_whether_it_rose_or_fell() {
        let after = Ceilings { copy_gigabytes_per_second: 110.0, fma_tflops: 0.75, ..CEILINGS };
        assert_eq!(CEILINGS.drift(&after), ("multiply-adds", -0.25));
        assert_eq!(CEILINGS.drift(&CEILINGS).1, 0.0);
    }
}
