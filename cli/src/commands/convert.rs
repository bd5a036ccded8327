//! `wgtune convert`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::{ArgGroup, Args, ValueEnum};
use serde::Serialize;
use wgtune_engine::Device;
use wgtune_models::error::{Error, Result};
use wgtune_models::formats::files::write_directory;
use wgtune_models::model::Model;
use wgtune_models::peft::{Converted, WeightedSum, to_lora};
use wgtune_models::transformer::load_decoder;
use wgtune_models::wording::{counted, listed};

use crate::adapters::{Weighted, check, largest_difference, load_sum, logits, picked, weighted};
use crate::common::{Compute, Force, Outcome, Overwrite, Task, on_interrupt, print_json, print_line};
use crate::config::Given;
use crate::numbers::whole;
use crate::progress::Progress;

/// Makes one LoRA adapter of others, of DoRA, IA3, or of a model whose weights were tuned, and says how far off it is
///
/// LoRAs alone are joined: A and B of each stand beside those of the others, and nothing is lost. With --rank every layer has the
/// nearest product of that rank to what was added to it, W_i - W, weighted and summed.
#[derive(Args)]
#[command(group = ArgGroup::new("source").args(["adapter", "tuned"]).required(true))]
#[command(after_help = "Examples:
  wgtune convert --model DIR --adapter one=0.7 --adapter other=0.3 --to lora --out DIR
  wgtune convert --model DIR --tuned DIR --to lora --rank 32 --out DIR")]
pub struct Arguments {
    /// The base: a Hugging Face model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A PEFT adapter directory, perhaps with a weight behind the last `=`; may be given several times
    #[arg(id = "adapter", long, value_name = "DIR[=WEIGHT]", value_parser = weighted())]
    adapters: Vec<Weighted>,
    #[command(flatten)]
    task: Task,
    /// A model directory of the base with tuned weights, in the place of adapters
    #[arg(long, value_name = "DIR")]
    tuned: Option<PathBuf>,
    /// What to make of it
    #[arg(long, value_enum)]
    to: Form,
    /// The rank of each layer, at most [default: the sum of the LoRAs' ranks]
    #[arg(long, value_parser = whole(1..=65_536))]
    rank: Option<usize>,
    /// Where to write the adapter: a new folder, or an empty one
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

/// What can be made of adapters.
#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// A LoRA in PEFT's layout
    Lora,
}

#[derive(Serialize)]
struct Report {
    layers: usize,
    least_rank: usize,
    most_rank: usize,
    relative_error: f64,
    worst_layer: String,
    worst_relative_error: f64,
    left_out: Vec<String>,
    largest_logit_difference: f32,
}

/// Writes the adapter, reads it back, and prints how far it is off.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let Arguments { tuned, to: Form::Lora, rank, out, compute, .. } = arguments;
    let adapters = picked(&arguments.adapters, &arguments.task)?;
    let base = Model::open(&arguments.model)?;
    let tuned = tuned.as_deref().map(Model::open).transpose()?;
    let read = adapters.iter().map(|adapter| &*adapter.directory).chain(tuned.iter().map(Model::directory));
    arguments.overwrite.check_folder(out, &read.chain([base.directory()]).collect::<Vec<_>>())?;
    check(&adapters, &base, &arguments.force)?;
    let device = compute.open()?;
    let sum = match &tuned {
        Some(tuned) => WeightedSum::new(load_decoder(base.directory(), &device)?, vec![(tuned.load(&device)?, 1.0)])?,
        None => load_sum(&base, &adapters, &device)?,
    };
    if rank.is_none() && !sum.is_of_products() {
        return Err("what is added is no product of thin matrices, as a LoRA's is: expected a --rank to cut it to".into());
    }
    let before = logits(&sum.tuned(), compute.seed)?;
    let converted = converted(&sum, &base, *rank)?;
    let largest_logit_difference = write(arguments, &base, &converted, &device, &before)?;
    let report = Report {
        layers: converted.ranks.len(),
        least_rank: converted.ranks.values().copied().min().unwrap_or_default(),
        most_rank: converted.ranks.values().copied().max().unwrap_or_default(),
        relative_error: converted.error,
        worst_layer: converted.worst.0,
        worst_relative_error: converted.worst.1,
        left_out: converted.left_out,
        largest_logit_difference,
    };
    if arguments.json { print_json(&report) } else { print(&report, arguments) }
}

fn converted(sum: &WeightedSum, base: &Model, rank: Option<usize>) -> std::result::Result<Converted, Box<dyn std::error::Error>> {
    let interrupted = on_interrupt("this layer")?;
    let mut bar = Progress::new("converting", sum.base().parameters().len(), 0);
    let mut told = || {
        bar.advance("");
        if interrupted.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    };
    Ok(to_lora(sum, &base.name()?, rank, &mut told)?)
}

/// Writes the adapter; the largest difference of its logits, read back, to those `before`.
fn write(arguments: &Arguments, base: &Model, converted: &Converted, device: &Device, before: &[f32]) -> Result<f32> {
    let weights = base.hash_weights()?;
    let mut largest = 0.0;
    write_directory(&arguments.out, |directory| {
        converted.tuned.write(Some(&weights), directory)?;
        base.copy_companions(directory, false)?;
        let after = logits(&base.load_adapted(device, Some(directory))?, arguments.compute.seed)?;
        device.flush()?;
        largest = largest_difference(before, &after);
        Ok(())
    })?;
    Ok(largest)
}

fn print(report: &Report, arguments: &Arguments) -> Outcome {
    let Report { least_rank, most_rank, .. } = report;
    let ranks = if least_rank == most_rank { format!("rank {most_rank}") } else { format!("ranks {least_rank} to {most_rank}") };
    print_line(&format!("wrote a LoRA of {} into {}, {ranks}", counted(report.layers, "layer"), arguments.out.display()))?;
    print_line(&format!("relative error of what is added: {:.2e}", report.relative_error))?;
    print_line(&format!("the largest of a layer: {:.2e}, of {}", report.worst_relative_error, report.worst_layer))?;
    if !report.left_out.is_empty() {
        print_line(&format!("differ, and are in no LoRA: {}", listed(&report.left_out)))?;
    }
    print_line(&format!("largest difference of logits: {:.2e}", report.largest_logit_difference))
}
