//! `wgtune devices`.

use clap::Args;
use serde::Serialize;
use wgtune_engine::device::{AdapterFeatures, AdapterInfo, adapters};

use crate::common::{Outcome, bytes, print_json, print_line};
use crate::config::Given;

/// Lists the devices: adapters, drivers, limits, and the features that matter here
#[derive(Args)]
#[command(after_help = "Example:\n  wgtune devices --json")]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    cpu_threads: usize,
    adapters: Vec<AdapterInfo>,
}

/// Prints them.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let report = Report { cpu_threads: threads, adapters: adapters() };
    if arguments.json {
        return print_json(&report);
    }
    print_line(&format!("cpu      {threads} threads"))?;
    for (index, adapter) in report.adapters.iter().enumerate() {
        let kind = if adapter.software { "software" } else { adapter.device_type };
        print_line(&format!("gpu:{index:<4} {} ({}, {kind})", adapter.name, adapter.backend))?;
        print_line(&format!("         driver    {} {}", adapter.driver, adapter.driver_info))?;
        let limits = &adapter.limits;
        let subgroups = limits.subgroup_sizes.map_or("none".into(), |(least, most)| format!("{least} to {most}"));
        print_line(&format!(
            "         limits    {} a tensor, {} of workgroup memory, {} invocations, subgroups {subgroups}",
            bytes(limits.storage_binding_bytes),
            bytes(limits.workgroup_memory_bytes.into()),
            limits.workgroup_invocations
        ))?;
        print_line(&format!("         features  {}", features(&adapter.features)))?;
        adapter.advice.iter().try_for_each(|advice| print_line(&format!("         advice    {advice}")))?;
    }
    if report.adapters.is_empty() {
        print_line("no GPU adapter: install a Vulkan, Metal or DX12 driver to use one")?;
    }
    Ok(())
}

/// The features that there are.
fn features(features: &AdapterFeatures) -> String {
    let matrices = features
        .cooperative_matrices
        .iter()
        .map(|shape| format!("matrix {}x{}x{} {}/{}", shape.m, shape.n, shape.k, shape.operands, shape.accumulator));
    let named = [
        ("f16", features.f16),
        ("subgroups", features.subgroups),
        ("timestamps", features.timestamps),
        ("immediates", features.immediates),
        ("pipeline cache", features.pipeline_cache),
    ];
    let all: Vec<String> = named.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.into()).chain(matrices).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
