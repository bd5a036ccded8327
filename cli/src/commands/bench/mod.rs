//! `wgtune bench`: what the device can do, and how near to that every op and every step comes.

mod ceilings;
mod check;
mod compare;
mod compile;
mod ladder;
mod measure;
mod ops;
mod page;
mod results;
mod sensors;
mod shapes;
mod steps;
mod table;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use wgtune_engine::Device;
use wgtune_engine::device::Config;
use wgtune_models::error::Error;
use wgtune_models::formats::files::write_bytes;
use wgtune_models::model::Model;

use crate::common::{Compute, Outcome, Overwrite, note, print_json, print_line};
use crate::config::Given;
use crate::numbers::{at_least_zero, whole};
use crate::progress::Progress;
use crate::runs::Failure;
use compare::Comparison;
use compile::Compiled;
use measure::{Bench, Measured};
use results::{DeviceUnderTest, LeftOut, Results};
use sensors::{GpuState, Watch};
use shapes::Shapes;
use steps::{Loaded, Step, Subject};
use workload::Workload;

/// Measures the device's ceilings, every op, and whole steps, and says how near each comes to what the device can do
///
/// Fails if a result is wrong or nothing was computed. Caches are not flushed between runs: operands that fit into one are read from it,
/// as they often are in a training step, and a share may pass 100 %.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  wgtune bench --report bench.html\n  wgtune bench --filter 'attention backward' --shapes all --tokens 1024\n  \
    wgtune bench --filter prefill,decode --model DIR --json\n  wgtune bench --json > before.json; wgtune bench --compare before.json\n  \
    wgtune bench --compile --device gpu --shapes 135m\n  wgtune bench --compile --device gpu --filter 'LoRA training step'"
)]
pub struct Arguments {
    /// Only what has all these words in its name, op, shape or direction; commas separate alternatives
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    filter: Vec<String>,
    /// Whose shapes [default: common and 135m; all on a real GPU]
    #[arg(long, value_enum, value_name = "SHAPES", value_delimiter = ',')]
    shapes: Vec<Shapes>,
    /// Tokens of a batch [default: 256 on the CPU, 64 on a software adapter, 1024 on a real GPU]
    #[arg(long, value_parser = whole(1..=16_384))]
    tokens: Option<usize>,
    /// Seconds for each measurement, after warming up
    #[arg(long, default_value_t = 0.2, value_parser = seconds)]
    seconds: f64,
    /// Take the steps with this model, a Hugging Face directory, instead of random weights of SmolLM2-135M's shape
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Measure nothing, and tell what the driver's compiler makes of every shader of every kernel: registers, spills, instructions; of
    /// steps that --filter names also how many dispatches they start. With --compare, fail if a shader spills more than in an earlier
    /// --compile --json
    #[arg(long, conflicts_with_all = ["model", "seconds", "list", "from", "report", "tolerance", "no_tune"])]
    compile: bool,
    /// Print what would be measured, and measure nothing
    #[arg(long)]
    list: bool,
    /// Show the figures of an earlier --json instead of measuring
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filter", "shapes", "tokens", "seconds", "model", "list", "device", "no_tune"])]
    from: Option<PathBuf>,
    /// Compare with an earlier --json; fail if anything is slower than --tolerance allows
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// How much slower a measurement may be, as a share of its earlier time
    #[arg(long, default_value_t = 0.2, value_parser = at_least_zero, requires = "compare")]
    tolerance: f64,
    /// Write one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

fn seconds(text: &str) -> Result<f64, String> {
    let in_range = |value: &f64| (0.001..=600.0).contains(value);
    text.parse().ok().filter(in_range).ok_or("expected seconds from 0.001 to 600".into())
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    results: &'a Results,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a Comparison>,
}

/// Measures, compares, writes the page and prints the figures.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    // A file that cannot be read or written is told before anything is measured.
    arguments.report.as_deref().map_or(Ok(()), |file| arguments.overwrite.check_file(file))?;
    arguments.model.as_deref().map(Model::open).transpose()?;
    if arguments.compile {
        return arguments.compile();
    }
    let earlier = arguments.compare.as_ref().map(|file| Results::open(file).map(|results| (file, results))).transpose()?;
    let results = match &arguments.from {
        Some(file) => Results::open(file)?,
        None => match arguments.measure()? {
            Some(results) => results,
            None => return Ok(()),
        },
    };
    let comparison = match &earlier {
        Some((file, before)) => Some(Comparison::new(file, before, &results, arguments.tolerance)?),
        None => None,
    };
    if let Some(file) = &arguments.report {
        write_bytes(file, page::page(&results, comparison.as_ref()).as_bytes())?;
        note(format!("wrote {}", file.display()));
    }
    if arguments.json {
        print_json(&Printed { results: &results, comparison: comparison.as_ref() })?;
    } else {
        table::lines(&results, comparison.as_ref()).iter().try_for_each(|line| print_line(line))?;
    }
    results.verdict()?;
    comparison.map_or(Ok(()), |comparison| Ok(comparison.verdict()?))
}

/// What is measured, in this order.
#[derive(Default)]
struct Plan {
    /// Each with the smaller one that is checked against f64 where it is too large for that, even in part.
    ops: Vec<(Workload, Workload)>,
    steps: Vec<Step>,
}

impl Arguments {
    fn compile(&self) -> Outcome {
        let earlier = self.compare.as_ref().map(|file| Compiled::open(file).map(|compiled| (file, compiled))).transpose()?;
        let config = Config { inspects: true, cache: None, ..self.compute.config() };
        let device = Device::open_with(&self.compute.device, &config).map_err(|error| match error {
            // Another device has no such driver either.
            wgtune_engine::Error::Open { adapter, reason } => format!("{adapter}: {reason}").into(),
            other => Failure::from(Error::Device(other)),
        })?;
        let about = DeviceUnderTest::of(&device);
        if about.kind == "cpu" {
            return Err("--compile is of a GPU's driver, and --device is the CPU: expected gpu, or a part of its name".into());
        }
        let model = Subject { directory: None, seed: self.compute.seed };
        let tokens = self.tokens.unwrap_or(1024);
        let mut plan = self.plan(&about, &model, tokens)?;
        // Their kernels are those of the ops, but for groups, and take minutes.
        if self.filter.is_empty() {
            plan.steps.clear();
        }
        let mut bar = Progress::new("compiling", plan.ops.len() + plan.steps.len(), 0);
        let mut compiled = compile::compile(&device, self.compute.seed, &plan.ops, &mut bar);
        compiled.add_steps(&device, &plan.steps, &model, tokens, &mut bar)?;
        drop(bar);
        match self.json {
            true => print_json(&compiled)?,
            false => compiled.lines().iter().try_for_each(|line| print_line(line))?,
        }
        let Some((file, before)) = earlier else { return Ok(()) };
        let (lines, verdict) = compiled.compare(file, &before);
        lines.iter().for_each(note);
        Ok(verdict?)
    }

    /// `None` where only a list was asked for.
    fn measure(&self) -> Result<Option<Results>, Box<dyn std::error::Error>> {
        let device = self.compute.open()?;
        let about = DeviceUnderTest::of(&device);
        let model = Subject { directory: self.model.clone(), seed: self.compute.seed };
        let tokens = self.tokens.unwrap_or(match about.kind.as_str() {
            "cpu" => 256,
            "software" => 64,
            _ => 1024,
        });
        let plan = self.plan(&about, &model, tokens)?;
        if self.list {
            plan.ops.iter().try_for_each(|(workload, _)| print_line(&workload.title()))?;
            plan.steps.iter().try_for_each(|step| print_line(&step.title(&model.name(), tokens)))?;
            return Ok(None);
        }
        let budget = Duration::from_secs_f64(self.seconds);
        note(format!("{} on {}", plan.count(), about.name));
        let watch = Watch::begin(&about);
        let before = ceilings::measure(&device, &self.compute, &about, budget)?;
        let ceilings = before.median;
        let mut results = Results {
            wgtune: env!("CARGO_PKG_VERSION").into(),
            device: about,
            ceilings,
            ceilings_before: Some(before),
            ceilings_after: None,
            ceilings_drift: None,
            gpu: GpuState::default(),
            results: Vec::new(),
            left_out: Vec::new(),
            faults: Vec::new(),
        };
        let mut bench = Bench::new(&self.compute, device, budget);
        let mut bar = Progress::new("measuring", plan.ops.len() + plan.steps.len(), 0);
        for (workload, smaller) in &plan.ops {
            match bench.measure(workload, smaller, &ceilings) {
                Ok(Measured { measurement, .. })
                    if workload.rung.is_some_and(|rung| !measurement.shaders.iter().any(|ran| ran == rung.shader)) =>
                {
                    let reason = "this device cannot run this shader at this shape".to_string();
                    results.left_out.push(LeftOut { name: workload.title(), reason });
                }
                Ok(Measured { measurement, fault: None }) => results.results.push(measurement),
                Ok(Measured { fault: Some(reason), .. }) => results.faults.push(LeftOut { name: workload.title(), reason }),
                Err(error) => results.left_out.push(LeftOut { name: workload.title(), reason: error.to_string() }),
            }
            bar.advance(&workload.name);
        }
        self.take_steps(&plan.steps, &model, tokens, &mut bench, &mut bar, &mut results)?;
        let after = ceilings::measure(&bench.device(None)?, &self.compute, &results.device, budget)?;
        results.ceilings_after = Some(after);
        results.ceilings_drift = Some(ceilings.drift(&after.median).1);
        results.gpu = watch.map_or(GpuState::default(), Watch::end);
        Ok(Some(results))
    }

    fn plan(&self, about: &DeviceUnderTest, model: &Subject, tokens: usize) -> Result<Plan, Error> {
        let shapes = match &self.shapes[..] {
            [] if about.is_software() => vec![Shapes::Common, Shapes::Small],
            [] => vec![Shapes::All],
            chosen => chosen.to_vec(),
        };
        let mut shapes: Vec<Shapes> = shapes.into_iter().flat_map(Shapes::expand).collect();
        shapes.dedup();
        let mut plan = Plan::default();
        for &shapes in &shapes {
            plan.ops.extend(ops::workloads(shapes, tokens, if about.is_software() { 1024 } else { 4096 }));
        }
        plan.ops.extend(ladder::workloads(about));
        plan.ops.retain(|(workload, _)| self.wants(&format!("{} {}", workload.title(), workload.op)));
        if shapes.contains(&Shapes::Small) || self.model.is_some() {
            plan.steps = Step::ALL.into();
            plan.steps.retain(|step| self.wants(&format!("{} step", step.title(&model.name(), tokens))));
        }
        if plan.ops.is_empty() && plan.steps.is_empty() {
            let message = format!("nothing is named {:?}: `wgtune bench --list` prints all names", self.filter.join(","));
            return Err(Error::Data { message });
        }
        Ok(plan)
    }

    fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let fits = |words: &String| words.to_lowercase().split_whitespace().all(|word| name.contains(word));
        self.filter.is_empty() || self.filter.iter().any(fits)
    }

    fn take_steps(
        &self,
        steps: &[Step],
        model: &Subject,
        tokens: usize,
        bench: &mut Bench,
        bar: &mut Progress,
        results: &mut Results,
    ) -> Outcome {
        let mut loaded = Loaded::default();
        for step in steps {
            let tuned = loaded.of(*step, model, &bench.device(None)?)?;
            match step.measure(&model.name(), tuned, tokens, bench.budget, &results.ceilings) {
                Ok(measured) if measured.kernel_seconds > Some(0.0) => results.results.push(measured),
                Ok(measured) => {
                    results.faults.push(LeftOut { name: measured.title(), reason: "started kernels that took no time".into() });
                }
                Err(Error::Device(error)) => {
                    results.left_out.push(LeftOut { name: step.title(&model.name(), tokens), reason: error.to_string() });
                    loaded = Loaded::default();
                    bench.reopen();
                }
                Err(error) => return Err(error.into()),
            }
            bar.advance(step.name());
        }
        Ok(())
    }
}

impl Plan {
    fn count(&self) -> String {
        wgtune_models::wording::counted(self.ops.len() + self.steps.len(), "measurement")
    }
}
