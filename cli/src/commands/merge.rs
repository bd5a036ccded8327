//! `wgtune merge`.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use serde::Serialize;
use wgtune_engine::{DType, Device, Tensor};
use wgtune_models::error::{Error, Result};
use wgtune_models::formats::files::write_directory;
use wgtune_models::model::Model;
use wgtune_models::peft::{self, Tuned};
use wgtune_models::transformer::{Decoder, save_decoder};
use wgtune_models::wording::counted;

use crate::adapters::{Weighted, check, check_merges, largest_difference, load_sum, logits, picked, weighted};
use crate::common::{Compute, Force, Outcome, Overwrite, Task, on_interrupt, print_json, print_line};
use crate::config::Given;

/// Adds adapters to their base and writes a plain model, or takes one away again
///
/// With weights a parameter W becomes W + sum_i w_i (W_i - W), where W_i is what the i-th adapter alone makes of it: the sum of the
/// updates themselves. PEFT's add_weighted_adapter of type `linear` weighs LoRA's A and B instead, whose product is another.
#[derive(Args)]
#[command(after_help = "Examples:
  wgtune merge --model DIR --adapter DIR --out DIR
  wgtune merge --model DIR --adapter one=0.7 --adapter other=0.3 --out DIR
  wgtune merge --model merged --adapter DIR --unmerge --out DIR")]
pub struct Arguments {
    /// The base: a Hugging Face model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A PEFT adapter directory, perhaps with a weight behind the last `=`; may be given several times
    #[arg(id = "adapter", long, value_name = "DIR[=WEIGHT]", required = true, value_parser = weighted())]
    adapters: Vec<Weighted>,
    #[command(flatten)]
    task: Task,
    /// Take the adapter away from a model that it was merged into
    #[arg(long)]
    unmerge: bool,
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
struct Merged {
    merged_layers: usize,
    largest_logit_difference: f32,
    dtype: String,
}

#[derive(Serialize)]
struct Unmerged {
    unmerged_layers: usize,
    /// Whether the weights are those that the adapter was made for, to the bit, where it says which these are.
    is_base: Option<bool>,
    largest_logit_difference: f32,
    dtype: String,
}

/// Writes the model, reads it back, and prints how far its logits are from those that they should be.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let base = Model::open(&arguments.model)?;
    let adapters = picked(&arguments.adapters, &arguments.task)?;
    let read = adapters.iter().map(|adapter| &*adapter.directory).chain([&*arguments.model]);
    arguments.overwrite.check_folder(&arguments.out, &read.collect::<Vec<_>>())?;
    if arguments.unmerge { unmerge(arguments, &adapters, &base) } else { merge(arguments, &adapters, &base) }
}

fn merge(arguments: &Arguments, adapters: &[Weighted], base: &Model) -> Outcome {
    let Arguments { out, compute, .. } = arguments;
    check(adapters, base, &arguments.force)?;
    let device = compute.open()?;
    let sum = load_sum(base, adapters, &device)?;
    let before = logits(&sum.tuned(), compute.seed)?;
    let (mut largest_logit_difference, merged_layers) = (0.0, Cell::new(0));
    let merged = |name: &str, tensor: &Tensor| {
        let merged = sum.merged(name, tensor);
        merged_layers.update(|layers| layers + usize::from(merged.is_some() && !sum.trains(name)));
        Ok(merged)
    };
    let dtype = write(arguments, base, sum.base(), &device, merged, |model| {
        largest_logit_difference = largest_difference(&before, &logits(&model.load(&device)?, compute.seed)?);
        Ok(())
    })?;
    let merged_layers = merged_layers.get();
    if arguments.json {
        return print_json(&Merged { merged_layers, largest_logit_difference, dtype: dtype.to_string() });
    }
    print_line(&format!("merged {} into {} ({dtype})", counted(merged_layers, "layer"), out.display()))?;
    print_line(&format!("largest difference of logits before and after: {largest_logit_difference:.2e}"))
}

fn unmerge(arguments: &Arguments, adapters: &[Weighted], merged: &Model) -> Outcome {
    let Arguments { out, compute, .. } = arguments;
    let [Weighted { directory: adapter, weight: 1.0 }] = adapters else {
        return Err("--unmerge takes one --adapter, of weight 1".into());
    };
    check_merges(adapter)?;
    let device = compute.open()?;
    let Tuned { decoder, method, .. } = merged.load_adapted(&device, Some(adapter))?;
    let before = logits(&Tuned::bare(decoder.clone()), compute.seed)?;
    let (mut largest_logit_difference, mut is_base, unmerged_layers) = (0.0, None, Cell::new(0));
    let unmerged = |name: &str, tensor: &Tensor| {
        let unmerged = method.unmerged(name, tensor)?;
        unmerged_layers.update(|layers| layers + usize::from(unmerged.is_some()));
        Ok(unmerged)
    };
    let dtype = write(arguments, merged, &decoder, &device, unmerged, |model| {
        let after = logits(&model.load_adapted(&device, Some(adapter))?, compute.seed)?;
        largest_logit_difference = largest_difference(&before, &after);
        is_base = peft::base_of(adapter).map(|hash| Ok::<_, Error>(hash == model.hash_weights()?)).transpose()?;
        Ok(())
    })?;
    let unmerged_layers = unmerged_layers.get();
    if arguments.json {
        return print_json(&Unmerged { unmerged_layers, is_base, largest_logit_difference, dtype: dtype.to_string() });
    }
    print_line(&format!("took the adapter from {} into {} ({dtype})", counted(unmerged_layers, "layer"), out.display()))?;
    print_line(match is_base {
        Some(true) => "its weights are those that the adapter was made for, to the bit",
        Some(false) => "its weights are not those that the adapter was made for, to the bit: both steps round",
        None => "the adapter does not say which weights it was made for",
    })?;
    print_line(&format!("largest difference of logits, with the adapter put back: {largest_logit_difference:.2e}"))
}

/// Writes a model with what `replaced` gives for its parameters, in the type that it is stored in, which is returned; `look` sees it
/// before it takes its place.
fn write(
    arguments: &Arguments,
    model: &Model,
    decoder: &Decoder,
    device: &Device,
    replaced: impl Fn(&str, &Tensor) -> Result<Option<Tensor>>,
    look: impl FnOnce(&Model) -> Result<()>,
) -> std::result::Result<DType, Box<dyn std::error::Error>> {
    let interrupted = on_interrupt("this tensor")?;
    let dtype = model.blueprint().dtype.unwrap_or(DType::F32);
    write_directory(&arguments.out, |directory| {
        save_decoder(directory, decoder, dtype, |name, tensor| match interrupted.load(Ordering::SeqCst) {
            true => Err(Error::Interrupted),
            false => replaced(name, tensor),
        })?;
        model.copy_companions(directory, true)?;
        look(&Model::open(directory)?)?;
        // Some systems rename no folder of which a file is still mapped.
        device.flush()?;
        Ok(())
    })?;
    Ok(dtype)
}
