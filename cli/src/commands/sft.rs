//! `wgtune sft`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use wgtune_engine::{DType, Device};
use wgtune_models::formats::adapter::{self, AdapterConfig, Init, Targets};
use wgtune_models::formats::chat_template::TEMPLATE_FILE;
use wgtune_models::formats::config::ModelConfig;
use wgtune_models::formats::files::{read_bytes, write_bytes};
use wgtune_models::formats::model::{
    Use, base_name, check_directory, copy_companions, copy_tokenizer, fingerprint, load_decoder, save_decoder,
};
use wgtune_models::peft::Lora;
use wgtune_models::train::tuned::Tuned;

use crate::common::{Compute, Outcome, print_json, print_line};
use crate::config::Given;
use crate::data::{Conversations, Source, prepare};
use crate::numbers::{above_zero, below_one, whole};
use crate::training::{Job, Training};

/// Fine-tunes a model on rows: prompt/completion, messages, Alpaca, ShareGPT, plain text, or token ids
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune sft --model DIR --data rows.jsonl --out DIR\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --method full --learning-rate 2e-5 --epochs 1\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --eval-every 50 --patience 5\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --resume\n  \
    wgtune sft --config DIR/run.toml --out OTHER")]
pub struct Arguments {
    /// A Hugging Face model directory: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    conversations: Conversations,
    /// Where the adapter or the model, metrics.jsonl and the checkpoint go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What is trained
    #[arg(long, value_enum, default_value_t = Method::Lora)]
    method: Method,
    #[command(flatten)]
    lora: LoraArguments,
    #[command(flatten)]
    training: Training,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

/// With all-linear and rank 8 it gains three times as much in 30 steps as 2e-4 on q_proj and v_proj does, and a little more in 300:
/// benches/results/2026-11-24-defaults.md.
const LORA_LEARNING_RATE: f64 = 5e-4;
/// TRL's.
const FULL_LEARNING_RATE: f64 = 2e-5;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Every parameter (learning rate 2e-5 unless given)
    Full,
    /// Low-rank updates of a frozen model (learning rate 5e-4 unless given)
    Lora,
}

#[derive(Args)]
struct LoraArguments {
    /// Start from this PEFT adapter, with its rank, alpha and targets
    #[arg(long, value_name = "DIR", conflicts_with_all = ["rank", "alpha", "targets", "init", "rslora"])]
    adapter: Option<PathBuf>,
    /// LoRA's rank, at most a layer's width
    #[arg(long, default_value_t = 8, value_parser = whole(1..=65_536))]
    rank: usize,
    /// LoRA's alpha: updates are scaled by alpha / rank
    #[arg(long, default_value_t = 16.0, value_parser = above_zero)]
    alpha: f64,
    /// Dropout of what enters an update
    #[arg(long, default_value_t = 0.0, value_parser = below_one)]
    dropout: f64,
    /// Names of the layers to update, separated by commas, each in the model, or all-linear
    #[arg(long, value_parser = targets, default_value = "all-linear")]
    targets: Targets,
    /// How A begins; B is zero
    #[arg(long, value_enum, default_value_t = InitName::Kaiming)]
    init: InitName,
    /// Scale updates by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)
    #[arg(long)]
    rslora: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum InitName {
    /// Uniform within 1 / sqrt(inputs)
    Kaiming,
    /// Normal with deviation 1 / rank
    Gaussian,
}

fn targets(text: &str) -> Result<Targets, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_string()).collect();
    match &names[..] {
        [all] if all == "all-linear" => Ok(Targets::AllLinear),
        names if names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) => {
            Err("expected names separated by commas, as q_proj,v_proj".into())
        }
        _ => Ok(Targets::Named(names)),
    }
}

/// Trains and writes the result.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let (training, seed, out) = (&arguments.training, arguments.compute.seed, &arguments.out);
    check_directory(&arguments.model)?;
    let read: Vec<&Path> =
        [Some(&arguments.model), arguments.lora.adapter.as_ref()].into_iter().flatten().map(AsRef::as_ref).collect();
    training.check(out, &read)?;
    let max_length = training.length.of(&ModelConfig::open(&arguments.model)?)?;
    let tokenizer = training.tokenizer(&arguments.model)?;
    let device = arguments.compute.open()?;
    let data = prepare(&arguments.model, &arguments.source, &arguments.conversations, max_length, training.held_out(), seed)?;
    let model = arguments.load(&device)?;
    let mut hashes = vec![("model", fingerprint(&arguments.model)?)];
    if let Some(adapter) = &arguments.lora.adapter {
        hashes.push(("adapter", adapter::fingerprint(adapter)?));
    }
    let default_learning_rate = if model.lora.is_some() { LORA_LEARNING_RATE } else { FULL_LEARNING_RATE };
    let samples = training.samples(tokenizer.as_ref(), &model.decoder)?;
    let job = Job { model: &model, data, out, seed, max_length, default_learning_rate, given, samples, hashes };
    let report = training.run(job, || {
        match &model.lora {
            Some(lora) => {
                copy_tokenizer(&arguments.model, out)?;
                lora.write_into(out)?;
            }
            None => {
                let dtype = model.decoder.config().dtype.unwrap_or(DType::F32);
                save_decoder(out, &model.decoder, dtype, |_, _| Ok(None))?;
                copy_companions(&arguments.model, out)?;
            }
        }
        // Whoever asks the model is to ask it as it was trained.
        arguments
            .conversations
            .template
            .template
            .as_deref()
            .map_or(Ok(()), |file| write_bytes(&out.join(TEMPLATE_FILE), &read_bytes(file)?))
    })?;
    if arguments.json { print_json(&report) } else { report.lines().iter().try_for_each(|line| print_line(line)) }
}

impl Arguments {
    fn load(&self, device: &Device) -> Result<Tuned, Box<dyn std::error::Error>> {
        if self.method == Method::Full {
            if self.lora.adapter.is_some() {
                return Err("--adapter goes with --method lora: merge it first to train the whole model".into());
            }
            return Ok(Tuned { decoder: load_decoder(&self.model, device, Use::Trained)?, lora: None });
        }
        let decoder = load_decoder(&self.model, device, Use::Frozen)?;
        let lora = match &self.lora.adapter {
            Some(directory) => Lora::open(directory, &decoder)?,
            None => Lora::new(self.lora.config(base_name(&self.model)?), &decoder, self.compute.seed)?,
        };
        Ok(Tuned { lora: Some(lora.requiring_grad()), decoder })
    }
}

impl LoraArguments {
    fn config(&self, base_model: String) -> AdapterConfig {
        AdapterConfig {
            rank: self.rank,
            alpha: self.alpha,
            dropout: self.dropout,
            targets: self.targets.clone(),
            rank_stabilised: self.rslora,
            init: match self.init {
                InitName::Kaiming => Init::Kaiming,
                InitName::Gaussian => Init::Gaussian,
            },
            base_model: Some(base_model),
            ..AdapterConfig::default()
        }
    }
}
