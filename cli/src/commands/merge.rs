//! `wgtune merge`.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use serde::Serialize;
use wgtune_engine::DType;
use wgtune_engine::random::Philox;
use wgtune_models::error::Error;
use wgtune_models::formats::files::write_directory;
use wgtune_models::generate::check_finite;
use wgtune_models::model::Model;
use wgtune_models::peft::{self, METHODS, Tuned};
use wgtune_models::transformer::save_decoder;
use wgtune_models::wording::{counted, listed};

use crate::common::{Compute, Force, Outcome, Overwrite, Task, on_interrupt, print_json, print_line};
use crate::config::Given;

/// Adds an adapter to its base, W0 + BA, and writes a plain model
#[derive(Args)]
#[command(after_help = "Example:\n  wgtune merge --model DIR --adapter DIR --out DIR")]
pub struct Arguments {
    /// The base: a Hugging Face model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A PEFT adapter directory
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    #[command(flatten)]
    task: Task,
    /// Where to write the model: a new folder, or an empty one
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

#[derive(Serialize)]
struct Report {
    merged_layers: usize,
    largest_logit_difference: f32,
    dtype: String,
}

/// Writes the model, reads it back, and prints how far its logits are from base and adapter's.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let base = Model::open(&arguments.model)?;
    let adapter_folder = arguments.task.of(&arguments.adapter)?;
    arguments.overwrite.check_folder(&arguments.out, &[&arguments.model, &adapter_folder])?;
    arguments.force.check(&base, Some(&adapter_folder))?;
    let device = arguments.compute.open()?;
    let interrupted = on_interrupt("this tensor")?;
    let tuned = base.load_adapted(&device, Some(&adapter_folder))?;
    let (method, adapter) = peft::method_of(&adapter_folder)?;
    if !adapter.merges {
        let name = method.name;
        let mergeable = METHODS.iter().filter(|entry| entry.adapter.as_ref().is_some_and(|adapter| adapter.merges));
        let mergeable: Vec<String> = mergeable.map(|entry| entry.name.to_string()).collect();
        let expected = listed(&mergeable);
        return Err(format!("an adapter of {name} adds what no weight of the model can hold: expected one of {expected}").into());
    }
    let dtype = base.blueprint().dtype.unwrap_or(DType::F32);
    let merged_layers = Cell::new(0);
    let before = logits(&tuned, arguments.compute.seed)?;
    let mut largest_logit_difference = 0.0;
    write_directory(&arguments.out, |directory| {
        let merged = |name: &str, tensor: &_| {
            if interrupted.load(Ordering::SeqCst) {
                return Err(Error::Interrupted);
            }
            let merged = tuned.method.merged(name, tensor);
            merged_layers.update(|layers| layers + usize::from(merged.is_some()));
            Ok(merged)
        };
        save_decoder(directory, &tuned.decoder, dtype, merged)?;
        base.copy_companions(directory, true)?;
        let after = logits(&Model::open(directory)?.load(&device)?, arguments.compute.seed)?;
        // Some systems rename no folder of which a file is still mapped.
        device.flush()?;
        largest_logit_difference = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        Ok(())
    })?;
    let merged_layers = merged_layers.get();
    let report = Report { merged_layers, largest_logit_difference, dtype: dtype.to_string() };
    if arguments.json {
        return print_json(&report);
    }
    print_line(&format!("merged {} into {} ({dtype})", counted(merged_layers, "layer"), arguments.out.display()))?;
    print_line(&format!("largest difference of logits before and after: {largest_logit_difference:.2e}"))
}

/// Of 32 random tokens, or as many as the model takes; all finite.
fn logits(model: &Tuned, seed: u64) -> wgtune_models::Result<Vec<f32>> {
    let Tuned { decoder, .. } = model;
    let (random, vocabulary) = (Philox::new(seed), decoder.blueprint().vocab_size as u32);
    let count = decoder.blueprint().longest_text().map_or(32, |longest| longest.min(32)) as u64;
    let ids: Vec<u32> = (0..count).map(|place| random.word(place) % vocabulary).collect();
    check_finite(model.logits(&ids).to_vec()?)
}
