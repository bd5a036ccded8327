//! `wgtune merge`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;
use serde::Serialize;
use wgtune_engine::DType;
use wgtune_engine::random::Philox;
use wgtune_models::error::Error;
use wgtune_models::formats::config::ModelConfig;
use wgtune_models::formats::files::write_directory;
use wgtune_models::formats::model::{Use, check_directory, copy_companions, load_decoder, save_decoder};
use wgtune_models::generate::check_finite;
use wgtune_models::peft::Lora;
use wgtune_models::transformer::{Decoder, Forward, Input};
use wgtune_models::wording::counted;

use crate::common::{Compute, Outcome, Overwrite, on_interrupt, print_json, print_line};

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
    /// Where to write the model: a new folder, or an empty one
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
pub fn run(arguments: &Arguments) -> Outcome {
    check_directory(&arguments.model)?;
    arguments.overwrite.check_folder(&arguments.out, &[&arguments.model, &arguments.adapter])?;
    let device = arguments.compute.open()?;
    let interrupted = on_interrupt("this tensor")?;
    let decoder = load_decoder(&arguments.model, &device, Use::Frozen)?;
    let lora = Lora::open(&arguments.adapter, &decoder)?;
    let dtype = ModelConfig::open(&arguments.model)?.dtype.unwrap_or(DType::F32);
    let merged_layers = lora.parameters().len() / 2;
    let tuned = Forward { tuning: std::sync::Arc::new(lora.clone()), checkpoint_blocks: false };
    let before = logits(&decoder, &tuned, arguments.compute.seed)?;
    let mut largest_logit_difference = 0.0;
    write_directory(&arguments.out, |directory| {
        let merged = |name: &str, tensor: &_| match interrupted.load(Ordering::SeqCst) {
            true => Err(Error::Interrupted),
            false => Ok(name.strip_suffix(".weight").and_then(|path| lora.merged(path, tensor))),
        };
        save_decoder(directory, &decoder, dtype, merged)?;
        copy_companions(&arguments.model, directory)?;
        let after = logits(&load_decoder(directory, &device, Use::Frozen)?, &Forward::default(), arguments.compute.seed)?;
        // Some systems rename no folder of which a file is still mapped.
        device.flush()?;
        largest_logit_difference = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        Ok(())
    })?;
    let report = Report { merged_layers, largest_logit_difference, dtype: dtype.to_string() };
    if arguments.json {
        return print_json(&report);
    }
    print_line(&format!("merged {} into {} ({dtype})", counted(merged_layers, "layer"), arguments.out.display()))?;
    print_line(&format!("largest difference of logits before and after: {largest_logit_difference:.2e}"))
}

/// Of 32 random tokens, all finite.
fn logits(decoder: &Decoder, forward: &Forward, seed: u64) -> wgtune_models::Result<Vec<f32>> {
    let (random, vocabulary) = (Philox::new(seed), decoder.config().vocab_size as u32);
    let ids: Vec<u32> = (0..32).map(|place| random.word(place) % vocabulary).collect();
    let hidden = decoder.hidden(&Input::row(decoder.device(), &ids), forward);
    check_finite(decoder.logits(&hidden).to_vec()?)
}
