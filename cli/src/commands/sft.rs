//! `wgtune sft`.

use std::path::{Path, PathBuf};

use clap::Args;
use wgtune_models::data::split::HeldOut;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::model::Model;
use wgtune_models::tasks::Table;
use wgtune_models::train::sft::Sft;
use wgtune_models::transformer::Decoder;

use crate::common::{Compute, Outcome, Stopped, is_interrupt, place_of, print_json, print_line};
use crate::config::Given;
use crate::data::{Conversations, Source, prepare};
use crate::jobs::Jobs;
use crate::plan;
use crate::probes::Probing;
use crate::report::Report;
use crate::runs::{self, End, Failure, GO_ON};
use crate::texts::Texts;
use crate::training::{Job, Training, writing};
use crate::tuning::Tuning;

/// Fine-tunes a model on rows: prompt/completion, messages, Alpaca, ShareGPT, plain text, or token ids
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune sft --model DIR --data rows.jsonl --out DIR\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --method full --learning-rate 2e-5 --epochs 1\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --eval-every 50 --patience 5\n  \
    wgtune sft --model DIR --data rows.jsonl --out DIR --resume\n  \
    wgtune sft --model DIR --data rows.jsonl --out TABLE --task answers --method prompt \\\n      \
    --prompt-template '<|virtual:8|> Question: {question} <|virtual:4|>'\n  \
    wgtune sft --config DIR/run.toml --out OTHER\n  \
    wgtune sft --jobs jobs.toml")]
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
    pub tuning: Tuning,
    #[command(flatten)]
    jobs: Jobs,
    #[command(flatten)]
    pub training: Training,
    #[command(flatten)]
    texts: Texts,
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
    if arguments.jobs.jobs.is_some() || arguments.texts.plan {
        return run_jobs(&[(arguments, given)]);
    }
    train(arguments, given)?.print(arguments.json)
}

/// Trains several adapters side by side.
pub fn run_jobs(jobs: &[(&Arguments, &Given)]) -> Outcome {
    let (first, _) = jobs[0];
    if first.texts.plan {
        return prepared(jobs, |prepared| plan::print(prepared, first.json));
    }
    let ends = prepared(jobs, runs::run)?;
    let (all, mut reports, mut failures) = (ends.len(), Vec::new(), Vec::new());
    for End { out, report } in ends {
        match report {
            Ok(report) => reports.push(report),
            Err(failure) => failures.push((out, failure)),
        }
    }
    if first.json {
        print_json(&reports)?;
    } else {
        reports.iter().flat_map(Report::lines).try_for_each(|line| print_line(&line))?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = failures.iter().map(|(out, failure)| format!("{}: {failure}", out.display())).collect();
    let said = said.join("; ");
    match failures.iter().any(|(_, failure)| is_interrupt(&**failure)) {
        // Once is enough.
        true => Err(Stopped(format!("{}{GO_ON}", said.replace(GO_ON, ""))).into()),
        false => Err(format!("{} of {all} jobs failed: {said}", failures.len()).into()),
    }
}

/// Trains and writes the result, and says what it came to.
pub fn train(arguments: &Arguments, given: &Given) -> Result<Report, Failure> {
    prepared(&[(arguments, given)], runs::run)?.remove(0).report
}

/// The model that jobs share.
struct Shared<'a> {
    base: &'a Model,
    /// A hash of its weights.
    weights: &'a str,
    bare: Decoder,
}

/// What comes of jobs that are opened and checked.
fn prepared<T>(jobs: &[(&Arguments, &Given)], then: impl FnOnce(Vec<Job<Sft>>) -> Result<T, Failure>) -> Result<T, Failure> {
    let (first, _) = jobs[0];
    let base = Model::open(&first.model)?;
    let mut outs: Vec<PathBuf> = Vec::new();
    for (arguments, _) in jobs {
        let out = arguments.place()?;
        let within = |one: &Path, other: &Path| place_of(one).starts_with(place_of(other));
        if let Some(other) = outs.iter().find(|other| within(&out, other) || within(other, &out)) {
            let (out, other) = (out.display(), other.display());
            return Err(format!("two jobs write {other} and {out}: expected an --out for each, none within another's").into());
        }
        let read: Vec<&Path> = [arguments.model.as_path()].into_iter().chain(arguments.tuning.read()).collect();
        arguments.texts.check(&arguments.source)?;
        if !arguments.texts.plan {
            arguments.training.check(&out, &read)?;
        }
        arguments.training.check_evaluation()?;
        arguments.training.length.of(base.blueprint())?;
        outs.push(out);
    }
    let tokenizers: Vec<Option<Tokenizer>> =
        jobs.iter().map(|(arguments, _)| arguments.training.tokenizer(&base)).collect::<Result<_, _>>()?;
    let device = if first.texts.plan { first.compute.open_dry()? } else { first.compute.open()? };
    let weights = if first.texts.plan { String::new() } else { base.hash_weights()? };
    let shared = Shared { bare: base.load(&device)?.decoder, base: &base, weights: &weights };
    let mut prepared = Vec::with_capacity(jobs.len());
    for (((arguments, given), out), tokenizer) in jobs.iter().zip(&outs).zip(&tokenizers) {
        let label = if jobs.len() > 1 { format!("{}: ", out.display()) } else { String::new() };
        prepared.push(arguments.job(given, label, &shared, out, tokenizer.as_ref())?);
    }
    if prepared.len() > 1 {
        check_together(&prepared)?;
    }
    then(prepared)
}

/// Checks that jobs can share each pass.
fn check_together(jobs: &[Job<Sft>]) -> Result<(), String> {
    for Job { out, model, .. } in jobs {
        let whole = model.decoder.parameters().into_iter().map(|(name, _)| name).find(|name| model.method.trains(name));
        if let Some(name) = whole {
            let out = out.display();
            return Err(format!(
                "{out}: {name} is trained whole, and jobs share it: expected what leaves the model as it is, and no --method full, \
                 --modules-to-save or --bias"
            ));
        }
    }
    // What scaling follows any length goes by the longest of a pass.
    let follows = |job: &&Job<Sft>| {
        let blueprint = job.model.decoder.blueprint();
        blueprint.longest_text().is_none() && job.max_length > blueprint.max_position_embeddings
    };
    if let Some(job) = jobs.iter().find(follows) {
        return Err(format!(
            "{}: the model's rope goes by the longest row of a pass, which jobs share: expected a --max-length of at most {} for each",
            job.out.display(),
            job.model.decoder.blueprint().max_position_embeddings
        ));
    }
    let with_prefix = jobs.iter().find(|job| job.model.method.prefix_length() > 0);
    let packed = jobs.iter().find(|job| job.recipe.training.is_packed());
    match (with_prefix, packed) {
        (Some(one), Some(other)) => Err(format!(
            "{} puts several texts into a row, and the prefix of {} stands before one: expected only one of the two among jobs",
            other.out.display(),
            one.out.display()
        )),
        _ => Ok(()),
    }
}

impl Arguments {
    /// Where the result goes.
    fn place(&self) -> wgtune_models::Result<PathBuf> {
        match &self.tuning.task {
            Some(name) => Table::open(&self.out)?.place(name),
            None => Ok(self.out.clone()),
        }
    }

    /// What is to be trained of the model, on its data.
    fn job<'a>(
        &'a self,
        given: &'a Given,
        label: String,
        shared: &Shared<'a>,
        place: &'a Path,
        tokenizer: Option<&'a Tokenizer>,
    ) -> Result<Job<'a, Sft>, Failure> {
        let Arguments { source, conversations, tuning, training, texts, probing, compute, .. } = self;
        let Shared { base, weights, ref bare } = *shared;
        let seed = compute.seed;
        let max_length = training.length.of(base.blueprint())?;
        let model = tuning.begin(base, bare.clone(), seed)?;
        if texts.packing && model.method.prefix_length() > 0 {
            return Err(
                "--packing puts several texts into a row, and a prefix stands before one: expected only one of the two".into()
            );
        }
        let data = prepare(base, &model, source, conversations, max_length, training.held_out(), seed)?;
        let probes = probing.open(training.batch_size, |source| {
            prepare(base, &model, source, conversations, max_length, HeldOut::Count(0), seed)
        })?;
        let (recipe, of_data) = texts.learning(training, data, seed, max_length);
        let hashes = [Some(("model", base.fingerprint(weights))), tuning.hash()?].into_iter().flatten().chain(of_data).collect();
        let samples = training.samples(tokenizer, &model)?;
        Ok(Job {
            label,
            training,
            model,
            recipe,
            out: place.to_path_buf(),
            seed,
            max_length,
            default_learning_rate: tuning.method.learning_rate,
            given,
            chosen: tuning.resolved(),
            samples,
            probes,
            hashes,
            write: writing(base, weights, place, conversations.template.template.as_deref()),
        })
    }
}
