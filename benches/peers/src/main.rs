//! wgtune beside burn and candle: the same numbers in the same shapes, taking turns in one run.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml -- --filter softmax
//!
//! Every engine is given the same inputs, computes, and is waited for; what comes out is compared with wgtune's CPU backend before
//! anything is timed. Each round runs every contender once, for as many repetitions as make a tenth of a second, so that
//! a machine that slows down slows all of them; a figure is the median over the rounds. The first build takes a while: burn and
//! candle are large, which is why this is a workspace of its own.

mod gpt;
mod table;
mod with_burn;
mod with_candle;
mod with_wgtune;
mod work;

use std::error::Error;
use std::time::Instant;

use clap::Parser;
use wgtune_engine::device::adapters;

use table::{Figure, Table};
use work::{Engine, Job, Then, Work};

/// wgtune beside burn and candle: medians and ratios of the same work, all taking turns in one run.
#[derive(Parser)]
#[command(after_help = "Example, for matrix products only, as JSON:\n  wgtune-peers --filter matmul --rounds 9 --json")]
struct Arguments {
    /// Only works whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only engines whose name contains one of these, such as `CPU` or `burn`
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    engines: Vec<String>,
    /// How often everybody takes a turn
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The GPU for wgtune and burn: `gpu`, or `gpu:<name or index>`
    #[arg(long, default_value = "gpu")]
    device: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let wanted = |name: &str| arguments.engines.is_empty() || arguments.engines.iter().any(|part| name.contains(part));
    let engines: Vec<Box<dyn Engine>> = engines(&arguments.device)?.into_iter().filter(|engine| wanted(engine.name())).collect();
    if engines.is_empty() {
        return Err("no engine of that name: expected a part of wgtune CPU, wgtune GPU, burn CPU, burn GPU or candle CPU".into());
    }
    let wanted = |work: &Work| arguments.filter.as_ref().is_none_or(|part| work.name().contains(part));
    let works: Vec<Work> = Work::ALL.into_iter().filter(wanted).collect();
    if works.is_empty() {
        return Err(format!("no work of that name: expected a part of one of {}", Work::ALL.map(Work::name).join("; ")).into());
    }
    let mut table = Table::new(arguments.rounds);
    for work in works {
        eprintln!("{}", work.name());
        table.add(work, measure(work, &engines, arguments.rounds)?);
    }
    table.print(arguments.json)
}

/// Everybody. A GPU's come second, and only where there is one.
fn engines(device: &str) -> Result<Vec<Box<dyn Engine>>, Box<dyn Error>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(with_wgtune::Wgtune::open("wgtune CPU", "cpu")?),
        Box::new(with_burn::Burn::cpu()),
        Box::new(with_candle::Candle),
    ];
    if !adapters().is_empty() {
        let ours = with_wgtune::Wgtune::open("wgtune GPU", device)?;
        let burn = with_burn::Burn::gpu(ours.adapter())?;
        engines.push(Box::new(ours));
        engines.push(Box::new(burn));
    }
    Ok(engines)
}

/// A contender for one work.
struct Contender<'a> {
    engine: &'a dyn Engine,
    job: Job,
    gap: f64,
    repetitions: u32,
    seconds: Vec<f64>,
}

/// How long a turn is meant to take.
const TURN: f64 = 0.1;

fn measure(work: Work, engines: &[Box<dyn Engine>], rounds: u32) -> Result<Vec<Figure>, Box<dyn Error>> {
    let expected = with_wgtune::Wgtune::open("reference", "cpu")?.job(work)?(Then::Read)?;
    let mut contenders = Vec::new();
    for engine in engines {
        let mut job = engine.job(work)?;
        let gap = relative_gap(&expected, &job(Then::Read)?)?;
        // Kernels are compiled, tuned and cached in the first calls.
        job(Then::Wait)?;
        let once = seconds(&mut job, 1)?;
        let repetitions = (TURN / once).clamp(1.0, 1000.0) as u32;
        contenders.push(Contender { engine: engine.as_ref(), job, gap, repetitions, seconds: Vec::new() });
    }
    for _ in 0..rounds {
        for contender in &mut contenders {
            let taken = seconds(&mut contender.job, contender.repetitions)?;
            contender.seconds.push(taken);
        }
    }
    Ok(contenders.into_iter().map(|c| Figure::new(c.engine.name(), c.seconds, c.gap)).collect())
}

/// Seconds that one repetition takes.
fn seconds(job: &mut Job, repetitions: u32) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    for _ in 0..repetitions {
        job(Then::Wait)?;
    }
    Ok(begun.elapsed().as_secs_f64() / f64::from(repetitions))
}

/// The largest difference, relative to the largest number expected; NaN if any result is.
fn relative_gap(expected: &[f32], got: &[f32]) -> Result<f64, Box<dyn Error>> {
    if expected.len() != got.len() {
        return Err(format!("expected {} results, got {}", expected.len(), got.len()).into());
    }
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let gap = match got.iter().find(|value| value.is_nan()) {
        Some(&nan) => nan,
        None => expected.iter().zip(got).fold(0.0f32, |most, (e, g)| most.max((e - g).abs())),
    };
    Ok(f64::from(gap / largest))
}
