//! Where the time of a run goes, kernel by kernel: a table, and a trace in the Chrome trace event format
//! (<https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>), which Perfetto reads too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wgtune_engine::Device;
use wgtune_engine::device::Span;
use wgtune_models::formats::files::{check_writable, write_bytes};

use crate::common::note;

/// Updates that are timed.
const STEPS: usize = 3;

/// Times the updates of a run that follow its first, in which shaders are compiled and memory is taken.
pub struct Profiler {
    file: PathBuf,
    device: Device,
    /// The last update that is not timed.
    warm_up: usize,
    running: bool,
    steps: usize,
    spans: Vec<Span>,
}

impl Profiler {
    /// Writes to `file` once the updates after number `warm_up` have run.
    pub fn new(file: &Path, device: &Device, warm_up: usize) -> wgtune_models::Result<Profiler> {
        check_writable(file)?;
        Ok(Profiler { file: file.into(), device: device.clone(), warm_up, running: false, steps: 0, spans: Vec::new() })
    }

    /// Hears that an update is done.
    pub fn after(&mut self, step: usize) -> Result<(), Box<dyn std::error::Error>> {
        if step == self.warm_up {
            self.device.start_profile()?;
            self.running = true;
        } else if self.running {
            self.steps += 1;
            if self.steps == STEPS {
                self.stop()?;
            }
        }
        Ok(())
    }

    /// Prints the table and writes the trace.
    pub fn finish(mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.stop()?;
        if self.steps == 0 {
            note("nothing to profile: the updates after a run's first are timed, and there were none");
            return Ok(());
        }
        table(&self.spans, self.steps).iter().for_each(note);
        write_bytes(&self.file, serde_json::to_string(&trace(&self.spans, self.device.name()))?.as_bytes())?;
        note(format!("wrote {}: open it in chrome://tracing or ui.perfetto.dev", self.file.display()));
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        if std::mem::take(&mut self.running) {
            self.spans = self.device.finish_profile()?;
        }
        Ok(())
    }
}

/// A line a kernel and shader, those that took longest first; figures are of one update.
fn table(spans: &[Span], steps: usize) -> Vec<String> {
    #[derive(Default)]
    struct Row {
        count: usize,
        seconds: f64,
        flops: u64,
        bytes: u64,
    }
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for span in spans {
        let row = rows.entry((span.kernel, span.shader)).or_default();
        row.count += 1;
        row.seconds += span.seconds;
        row.flops += span.cost.flops;
        row.bytes += span.cost.bytes;
    }
    let total: f64 = rows.values().map(|row| row.seconds).sum();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    let header = ["kernel", "shader", "calls", "ms", "share", "GFLOP/s", "GB/s"];
    let mut lines = vec![line(header.map(str::to_string))];
    let a_step = steps as f64;
    for ((kernel, shader), row) in rows {
        lines.push(line([
            kernel.to_string(),
            shader.to_string(),
            format!("{:.0}", row.count as f64 / a_step),
            format!("{:.2}", 1e3 * row.seconds / a_step),
            format!("{:.1} %", 100.0 * row.seconds / total),
            format!("{:.1}", 1e-9 * row.flops as f64 / row.seconds),
            format!("{:.1}", 1e-9 * row.bytes as f64 / row.seconds),
        ]));
    }
    let calls = spans.len() as f64 / a_step;
    lines.push(line(
        ["all", "", &format!("{calls:.0}"), &format!("{:.2}", 1e3 * total / a_step), "100.0 %", "", ""].map(str::to_string),
    ));
    lines
}

fn line([kernel, shader, calls, time, share, flops, bytes]: [String; 7]) -> String {
    format!("{kernel:<26} {shader:<32} {calls:>6} {time:>9} {share:>7} {flops:>9} {bytes:>7}").trim_end().to_string()
}

/// The spans as complete events, in microseconds.
fn trace(spans: &[Span], device: &str) -> Value {
    let event = |span: &Span| {
        json!({
            "name": span.kernel,
            "cat": span.shader,
            "ph": "X",
            "pid": 1,
            "tid": 1,
            "ts": 1e6 * span.start,
            "dur": 1e6 * span.seconds,
            "args": { "params": span.params, "flops": span.cost.flops, "bytes": span.cost.bytes },
        })
    };
    let name = json!({ "name": "process_name", "ph": "M", "pid": 1, "args": { "name": device } });
    let events: Vec<Value> = std::iter::once(name).chain(spans.iter().map(event)).collect();
    json!({ "traceEvents": events, "displayTimeUnit": "ms" })
}
