//! `wgtune logits`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use wgtune_engine::DType;
use wgtune_models::formats::safetensors::{self, TensorInfo};
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::generate::{check_finite, check_prompt};

use crate::common::{Base, Compute, Outcome, Overwrite, Prompt, check_length, print_json};
use crate::config::Given;

/// Computes the logits of a prompt, to compare a model with another implementation
#[derive(Args)]
#[command(after_help = "Example:\n  wgtune logits --model DIR --prompt 'Once upon a time' --out logits.safetensors")]
pub struct Arguments {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    prompt: Prompt,
    /// Write `logits` [T, V] in f32 to this safetensors file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Allow a prompt of more tokens than the model was made for
    #[arg(long)]
    beyond: bool,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Serialize)]
struct Report {
    ids: Vec<u32>,
    top: Vec<Candidate>,
}

#[derive(Serialize)]
struct Candidate {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    piece: Option<String>,
    logit: f32,
    probability: f64,
}

/// Prints the ten most likely next tokens as JSON, and writes all logits.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let base = arguments.base.open()?;
    arguments.out.as_deref().map_or(Ok(()), |file| arguments.overwrite.check_file(file))?;
    let device = arguments.compute.open()?;
    let model = arguments.base.load(&base, &device)?;
    let ids = arguments.prompt.ids(&base, &model)?;
    let decoder = &model.decoder;
    check_prompt(&model, &ids)?;
    check_length(decoder.blueprint(), "the prompt", model.positions(&ids), arguments.beyond)?;
    let logits = check_finite(model.logits(&ids).to_vec()?)?;
    let vocabulary = decoder.blueprint().vocab_size;
    if let Some(path) = &arguments.out {
        let info = TensorInfo { name: "logits".into(), dtype: DType::F32, shape: vec![ids.len(), vocabulary] };
        let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
        safetensors::save(path, &[info], &BTreeMap::new(), |_| Ok(Cow::Borrowed(&bytes)))?;
    }
    let top = top(&logits[(ids.len() - 1) * vocabulary..], base.tokenizer().ok().as_ref());
    print_json(&Report { ids, top })
}

fn top(logits: &[f32], tokenizer: Option<&Tokenizer>) -> Vec<Candidate> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    let largest = f64::from(logits[ids[0] as usize]);
    let weight = |id: u32| (f64::from(logits[id as usize]) - largest).exp();
    let total: f64 = ids.iter().map(|&id| weight(id)).sum();
    let candidate = |id: u32| Candidate {
        id,
        piece: tokenizer.and_then(|tokenizer| tokenizer.pieces(&[id]).pop()),
        logit: logits[id as usize],
        probability: weight(id) / total,
    };
    ids.into_iter().take(10).map(candidate).collect()
}
