//! `wgtune sft`.

use std::path::{Path, PathBuf};

use clap::Args;
use wgtune_models::data::split::HeldOut;
use wgtune_models::formats::chat_template::TEMPLATE_FILE;
use wgtune_models::formats::files::{read_bytes, write_bytes};
use wgtune_models::model::Model;
use wgtune_models::tasks::Table;

use crate::common::{Compute, Outcome, print_json, print_line};
use crate::config::Given;
use crate::data::{Conversations, Source, prepare};
use crate::probes::Probing;
use crate::report::Report;
use crate::training::{Job, Training};
use crate::tuning::Tuning;

/// Fine-tunes a model on rows: prompt/completion, messages, Alpaca, ShareGPT, plain text, or token ids
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune sft --model DIR --data rows.jsonl --out DIR\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --method full --learning-rate 2e-5 --epochs 1\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --eval-every 50 --patience 5\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --resume\n  \
    wgtune sft --model DIR --data rows.jsonl --out TABLE --task answers --method prompt \\\n      \
    --prompt-template '<|virtual:8|> Question: {question} <|virtual:4|>'\n  \
    wgtune sft --config DIR/run.toml --out OTHER")]
pub struct Arguments {
    /// A Hugging Face model directory: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub conversations: Conversations,
    /// Where the adapter or the model, metrics.jsonl and the checkpoint go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    pub training: Training,
    #[command(flatten)]
    probing: Probing,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// Trains and writes the result.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let report = train(arguments, given)?;
    if arguments.json { print_json(&report) } else { report.lines().iter().try_for_each(|line| print_line(line)) }
}

/// Trains and writes the result, and says what it came to.
pub fn train(arguments: &Arguments, given: &Given) -> Result<Report, Box<dyn std::error::Error>> {
    let Arguments { model, source, conversations, tuning, training, probing, compute, .. } = arguments;
    let out = &match &tuning.task {
        Some(name) => Table::open(&arguments.out)?.place(name)?,
        None => arguments.out.clone(),
    };
    let base = Model::open(model)?;
    let read: Vec<&Path> = [model.as_path()].into_iter().chain(tuning.read()).collect();
    training.check(out, &read, source)?;
    let max_length = training.length.of(base.blueprint())?;
    let tokenizer = training.tokenizer(&base)?;
    let device = compute.open()?;
    let model = tuning.load(&base, &device, compute.seed)?;
    if training.packing && model.method.prefix_length() > 0 {
        return Err(
            "--packing puts several texts into a row, and a prefix stands before one: expected only one of the two".into()
        );
    }
    let data = prepare(&base, &model, source, conversations, max_length, training.held_out(), compute.seed)?;
    let probes = probing.open(training.batch_size, |source| {
        prepare(&base, &model, source, conversations, max_length, HeldOut::Count(0), compute.seed)
    })?;
    let (recipe, of_data) = training.learning(data, compute.seed, max_length);
    let weights = base.hash_weights()?;
    let hashes = [Some(("model", base.fingerprint(&weights))), tuning.hash()?].into_iter().flatten().chain(of_data).collect();
    let job = Job {
        model: &model,
        recipe,
        out,
        seed: compute.seed,
        max_length,
        default_learning_rate: tuning.method.learning_rate,
        given,
        chosen: tuning.resolved(),
        samples: training.samples(tokenizer.as_ref(), &model)?,
        probes,
        hashes,
    };
    training.run(job, || {
        model.write(Some(&weights), out)?;
        base.copy_companions(out, !model.method.is_adapter())?;
        // Whoever asks the model is to ask it as it was trained.
        let template = conversations.template.template.as_deref();
        template.map_or(Ok(()), |file| write_bytes(&out.join(TEMPLATE_FILE), &read_bytes(file)?))
    })
}
