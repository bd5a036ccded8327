//! The figures as text for a terminal.

use std::collections::BTreeMap;

use super::check::Checked;
use super::compare::Comparison;
use super::results::{Ceilings, Measurement, Results, Spread, Tries};
use crate::common::bytes;
use crate::tables::columns;
use crate::units::{byte_rate, duration, error, flops_rate, percent};

/// All lines.
pub fn lines(results: &Results, comparison: Option<&Comparison>) -> Vec<String> {
    let mut lines = vec![format!("{} ({})", results.device.name, results.device.kind), String::new()];
    lines.extend(
        ceilings(results).into_iter().map(|[name, figure, tries]| format!("{name:<30} {figure:<14} {tries}").trim_end().into()),
    );
    lines.extend(drift(results));
    lines.extend(gpu(results).into_iter().map(|[name, figure, spread]| format!("{name:<30} {figure:<14} {spread}")));
    let (steps, ops): (Vec<&Measurement>, Vec<&Measurement>) = results.results.iter().partition(|one| one.op == "step");
    if !ops.is_empty() {
        let head = ["op", "", "shape", "median", "p10 to p90", "rate", "memory", "bound by", "share", "error"];
        lines.extend(columns(&head, ops.into_iter().map(op_row)));
    }
    if !steps.is_empty() {
        let head = [
            "step",
            "shape",
            "median",
            "p10 to p90",
            "kernels",
            "idle",
            "tokens/s",
            "peak memory",
            "dispatches",
            "rate",
            "share",
        ];
        lines.extend(columns(&head, steps.into_iter().map(step_row)));
    }
    lines.push(String::new());
    lines.push(NO_FLUSH.to_string());
    let is_of = |of: Checked| results.results.iter().any(|one| one.error_of == Some(of));
    if is_of(Checked::Sample) {
        lines.push(format!("{SAMPLE_MARK} the error of a sample of elements of the last run, which is timed too"));
    }
    if is_of(Checked::Smaller) {
        lines.push(format!(
            "{SMALLER_MARK} the error of a smaller shape: neither all of this one nor a part could be computed in f64"
        ));
    }
    if !results.left_out.is_empty() {
        lines.push(String::new());
        lines.extend(results.left_out.iter().map(|one| format!("left out: {}: {}", one.name, one.reason)));
    }
    if !results.faults.is_empty() {
        lines.push(String::new());
        lines.extend(results.faults.iter().map(|one| format!("failed: {} {}", one.name, one.reason)));
    }
    if let Some(comparison) = comparison {
        lines.push(String::new());
        lines.extend(compared(comparison));
    }
    lines
}

/// What of the caches a reader has to know.
pub const NO_FLUSH: &str = "caches are not flushed between runs: operands that fit into one are read from it, as they often are in a \
                            training step, and a share may pass 100 %; the copy's fit into none";

const SAMPLE_MARK: &str = "~";
const SMALLER_MARK: &str = "*";

/// A larger change of a ceiling is told.
const LARGE_DRIFT: f64 = 0.1;

/// What the ceilings are called, what they are, and how the tries before and after all else differed; those that the device has.
pub fn ceilings(results: &Results) -> Vec<[String; 3]> {
    type Figure = (&'static str, fn(&Ceilings) -> Option<f64>, fn(f64) -> String);
    let all: [Figure; 6] = [
        ("copy", |one| Some(one.copy_gigabytes_per_second), byte_rate),
        ("multiply-adds in f32", |one| Some(one.fma_tflops), flops_rate),
        ("products of matrices", |one| one.matrix_tflops, flops_rate),
        ("a dispatch", |one| Some(one.dispatch_seconds), duration),
        ("the host's part of it", |one| one.host_seconds, duration),
        ("of which encoding", |one| one.encode_seconds, duration),
    ];
    let figure = |(name, of, unit): Figure| {
        let spread = |tries: &Tries| {
            let [slow, fast] = [&tries.slow, &tries.fast].map(|ceilings| of(ceilings).unwrap_or_default());
            format!("{} to {}", unit(slow.min(fast)), unit(slow.max(fast)))
        };
        let before = results.ceilings_before.as_ref().map(spread);
        let after = results
            .ceilings_after
            .as_ref()
            .map(|tries| format!("; after all else {}, {}", unit(of(&tries.median).unwrap_or_default()), spread(tries)));
        Some([name.to_string(), unit(of(&results.ceilings)?), before.unwrap_or_default() + &after.unwrap_or_default()])
    };
    all.into_iter().filter_map(figure).collect()
}

/// A word where the device did not stay what it was.
pub fn drift(results: &Results) -> Option<String> {
    let (name, share) = results.ceilings.drift(&results.ceilings_after?.median);
    let direction = if share < 0.0 { "slower" } else { "faster" };
    (share.abs() > LARGE_DRIFT).then(|| {
        let percent = percent(share.abs());
        format!(
            "the device changed meanwhile: {name} {percent} {direction} after all else than before, and shares are as uncertain"
        )
    })
}

/// The GPU's clock and power, where the system tells.
pub fn gpu(results: &Results) -> Vec<[String; 3]> {
    let row = |name: &str, spread: Option<Spread>, unit: &str| {
        let spread = spread?;
        let [median, low, high] = [spread.median, spread.p10, spread.p90].map(|value| format!("{value:.0}"));
        Some([name.to_string(), format!("{median} {unit}"), format!("{low} to {high}")])
    };
    let rows = [row("GPU's clock", results.gpu.clock_megahertz, "MHz"), row("GPU's power", results.gpu.power_watts, "W")];
    rows.into_iter().flatten().collect()
}

fn op_row(one: &Measurement) -> [String; 10] {
    [
        format!("{} {}", one.model, one.name),
        one.direction.to_string(),
        one.shape.clone(),
        duration(one.seconds.median),
        format!("{} to {}", duration(one.seconds.p10), duration(one.seconds.p90)),
        if one.flops > 0 { flops_rate(one.tflops) } else { String::new() },
        byte_rate(one.gigabytes_per_second),
        one.bound.to_string(),
        percent(one.share),
        one.error.map_or(String::new(), |value| format!("{} {}", error(value), mark(one)).trim_end().to_string()),
    ]
}

fn mark(one: &Measurement) -> &'static str {
    match one.error_of {
        Some(Checked::Sample) => SAMPLE_MARK,
        Some(Checked::Smaller) => SMALLER_MARK,
        _ => "",
    }
}

fn step_row(one: &Measurement) -> [String; 11] {
    [
        format!("{} {}", one.model, one.name),
        one.shape.clone(),
        duration(one.seconds.median),
        format!("{} to {}", duration(one.seconds.p10), duration(one.seconds.p90)),
        one.kernel_seconds.map_or(String::new(), duration),
        one.idle_share.map_or(String::new(), percent),
        one.tokens_per_second.map_or(String::new(), |rate| format!("{rate:.1}")),
        one.peak_tensor_bytes.map_or(String::new(), bytes),
        one.dispatches.to_string(),
        flops_rate(one.tflops),
        percent(one.share),
    ]
}

fn compared(comparison: &Comparison) -> Vec<String> {
    let head = ["time now / then", "", "then", "now"];
    let mut sorted: Vec<_> = comparison.ratios.iter().collect();
    sorted.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    let rows = sorted.into_iter().map(|one| {
        let mark = if one.slower { "slower" } else { "" };
        [format!("{:.3} {mark}", one.ratio), one.name.clone(), duration(one.before), duration(one.now)]
    });
    let mut lines = columns(&head, rows);
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    comparison.left_out.iter().for_each(|one| reasons.entry(&one.reason).or_default().push(&one.name));
    for (reason, names) in reasons {
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        lines.push(format!("not compared, {reason}: {}{more}", names[..names.len().min(3)].join("; ")));
    }
    lines
}
