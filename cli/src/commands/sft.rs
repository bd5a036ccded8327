//! `wgtune sft`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use wgtune_engine::{DType, Device};
use wgtune_models::error::Error;
use wgtune_models::formats::adapter::{AdapterConfig, Init, Targets};
use wgtune_models::formats::model::{Use, copy_companions, load_decoder, save_decoder};
use wgtune_models::peft::Lora;
use wgtune_models::train::tuned::Tuned;

use crate::common::{Compute, Outcome, print_json, print_line};
use crate::data::{Source, prepare};
use crate::training::{Training, at_least_one};

/// Fine-tunes a model on rows: prompt/completion, messages, Alpaca, ShareGPT, plain text, or token ids
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune sft --model DIR --data rows.jsonl --out DIR\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --method full --learning-rate 2e-5 --epochs 1\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --resume")]
pub struct Arguments {
    /// A Hugging Face model directory: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    source: Source,
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Every parameter (learning rate 2e-5 unless given)
    Full,
    /// Low-rank updates of a frozen model (learning rate 2e-4 unless given)
    Lora,
}

#[derive(Args)]
struct LoraArguments {
    /// Start from this PEFT adapter, with its rank, alpha and targets
    #[arg(long, value_name = "DIR", conflicts_with_all = ["rank", "alpha", "targets", "init", "rslora"])]
    adapter: Option<PathBuf>,
    /// LoRA's rank
    #[arg(long, default_value_t = 8, value_parser = at_least_one)]
    rank: usize,
    /// LoRA's alpha: updates are scaled by alpha / rank
    #[arg(long, default_value_t = 16.0)]
    alpha: f64,
    /// Dropout of what enters an update
    #[arg(long, default_value_t = 0.0, value_parser = probability)]
    dropout: f64,
    /// Names of the layers to update, separated by commas, or all-linear
    #[arg(long, value_delimiter = ',', default_value = "q_proj,v_proj")]
    targets: Vec<String>,
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

fn probability(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| (0.0..1.0).contains(value)).ok_or("expected a number from 0 to below 1".into())
}

/// Trains and writes the result.
pub fn run(arguments: &Arguments) -> Outcome {
    let device = arguments.compute.open()?;
    let training = &arguments.training;
    let data = prepare(&arguments.model, &arguments.source, training.max_length, training.held_out(), arguments.compute.seed)?;
    let model = arguments.load(&device)?;
    let (learning_rate, options) = match &model.lora {
        Some(lora) => (2e-4, json!({"method": "lora", "lora": lora.config().to_json(), "model": arguments.model})),
        None => (2e-5, json!({"method": "full", "model": arguments.model})),
    };
    let report = training.run(&model, data, &arguments.out, arguments.compute.seed, learning_rate, options)?;
    match &model.lora {
        Some(lora) => lora.write_into(&arguments.out)?,
        None => {
            let dtype = model.decoder.config().dtype.unwrap_or(DType::F32);
            save_decoder(&arguments.out, &model.decoder, dtype, |_, _| None)?;
            copy_companions(&arguments.model, &arguments.out)?;
        }
    }
    if arguments.json { print_json(&report) } else { report.lines().iter().try_for_each(|line| print_line(line)) }
}

impl Arguments {
    fn load(&self, device: &Device) -> wgtune_models::Result<Tuned> {
        if self.method == Method::Full {
            if self.lora.adapter.is_some() {
                let message = "--adapter goes with --method lora: merge it first to train the whole model".into();
                return Err(Error::Data { message });
            }
            return Ok(Tuned { decoder: load_decoder(&self.model, device, Use::Trained)?, lora: None });
        }
        let decoder = load_decoder(&self.model, device, Use::Frozen)?;
        let lora = match &self.lora.adapter {
            Some(directory) => Lora::open(directory, &decoder)?,
            None => Lora::new(self.lora.config(self.model.display().to_string()), &decoder, self.compute.seed)?,
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
            targets: match &self.targets[..] {
                [all] if all == "all-linear" => Targets::AllLinear,
                names => Targets::Named(names.to_vec()),
            },
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
