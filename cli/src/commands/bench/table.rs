//! The figures as text for a terminal.

use std::collections::BTreeMap;

use super::compare::Comparison;
use super::results::{Ceilings, Measurement, Results};
use crate::common::bytes;
use crate::tables::columns;
use crate::units::{byte_rate, duration, error, flops_rate, percent};

/// All lines.
pub fn lines(results: &Results, comparison: Option<&Comparison>) -> Vec<String> {
    let mut lines = vec![format!("{} ({})", results.device.name, results.device.kind), String::new()];
    lines.extend(ceilings(&results.ceilings).into_iter().map(|[name, figure]| format!("{name:<30} {figure}")));
    let (steps, ops): (Vec<&Measurement>, Vec<&Measurement>) = results.results.iter().partition(|one| one.op == "step");
    if !ops.is_empty() {
        let head = ["op", "", "shape", "median", "p10 to p90", "rate", "memory", "bound by", "share", "error"];
        lines.extend(columns(&head, ops.into_iter().map(op_row)));
    }
    if !steps.is_empty() {
        let head = ["step", "shape", "median", "p10 to p90", "tokens/s", "peak memory", "dispatches", "rate", "share"];
        lines.extend(columns(&head, steps.into_iter().map(step_row)));
    }
    // Ceilings are of operands in memory.
    if results.results.iter().any(|one| one.share > 1.0) {
        lines.push(String::new());
        lines.push("a share above 100 %: the operands stayed in a cache, those of the copy do not".to_string());
    }
    if !results.left_out.is_empty() {
        lines.push(String::new());
        lines.extend(results.left_out.iter().map(|one| format!("left out: {}: {}", one.name, one.reason)));
    }
    if let Some(comparison) = comparison {
        lines.push(String::new());
        lines.extend(compared(comparison));
    }
    lines
}

/// What the ceilings are called, and what they are; those that the device has.
pub fn ceilings(ceilings: &Ceilings) -> Vec<[String; 2]> {
    let all = [
        ("copy", Some(byte_rate(ceilings.copy_gigabytes_per_second))),
        ("multiply-adds in f32", Some(flops_rate(ceilings.fma_tflops))),
        ("products of matrices", ceilings.matrix_tflops.map(flops_rate)),
        ("a dispatch", Some(duration(ceilings.dispatch_seconds))),
        ("the host's part of it", ceilings.host_seconds.map(duration)),
        ("of which encoding", ceilings.encode_seconds.map(duration)),
    ];
    all.into_iter().filter_map(|(name, figure)| Some([name.to_string(), figure?])).collect()
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
        one.error.map_or(String::new(), |value| format!("{}{}", error(value), if one.error_shape.is_some() { " *" } else { "" })),
    ]
}

fn step_row(one: &Measurement) -> [String; 9] {
    [
        format!("{} {}", one.model, one.name),
        one.shape.clone(),
        duration(one.seconds.median),
        format!("{} to {}", duration(one.seconds.p10), duration(one.seconds.p90)),
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
