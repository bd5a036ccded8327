//! What `sft` and `pretrain` share: the options of a run, and the run itself.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;
use wgtune_engine::device::MatmulPrecision;
use wgtune_engine::process;
use wgtune_models::data::batch::{Loader, Options};
use wgtune_models::data::encode::Example;
use wgtune_models::data::split::HeldOut;
use wgtune_models::error::Error;
use wgtune_models::formats::config::ModelConfig;
use wgtune_models::train::record::May;
use wgtune_models::train::run::{Begin, RunDirectory};
use wgtune_models::train::schedule::{LearningRate, Schedule};
use wgtune_models::train::sft::{Evaluation, Metrics, Progress, Recipe, evaluate, train};
use wgtune_models::train::tuned::Tuned;
use wgtune_models::wording::{counted, listed};

use crate::common::{Overwrite, Stopped, bytes, check_folder, check_length, note, on_interrupt};
use crate::config::{ConfigFile, Given, MAY_DIFFER};
use crate::data::{Prepared, fingerprint};
use crate::numbers::{MOST_TOKENS, above_zero, at_least_zero, whole};
use crate::profile::Profiler;
use crate::progress;

/// How long a row may be.
#[derive(Args)]
pub struct Length {
    /// Tokens of the longest row; longer rows are cut, and counted [default: 1024, or as many as the model was made for]
    #[arg(long, value_parser = whole(2..=MOST_TOKENS), value_name = "TOKENS")]
    pub max_length: Option<usize>,
    /// Allow more tokens than the model was made for (its max_position_embeddings, and what its rope scaling makes of them)
    #[arg(long)]
    pub beyond: bool,
}

impl Length {
    const DEFAULT: usize = 1024;

    /// For rows that this model reads.
    pub fn of(&self, config: &ModelConfig) -> Result<usize, String> {
        match self.max_length {
            None => Ok(config.longest_text().map_or(Length::DEFAULT, |longest| longest.min(Length::DEFAULT))),
            Some(length) => check_length(config, "the longest row", length, self.beyond).map(|()| length),
        }
    }

    /// For rows of a model that is made for them.
    pub fn of_new_model(&self) -> usize {
        self.max_length.unwrap_or(Length::DEFAULT)
    }
}

/// How a run goes.
#[derive(Args)]
pub struct Training {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Updates to make; without it, --epochs decides
    #[arg(long, value_parser = whole(1..=1_000_000_000))]
    pub steps: Option<usize>,
    /// Passes over the data
    #[arg(long, default_value_t = 3.0, value_parser = above_zero, conflicts_with = "steps")]
    pub epochs: f64,
    /// Rows of a batch
    #[arg(long, default_value_t = 4, value_parser = whole(1..=65_536))]
    pub batch_size: usize,
    /// Batches behind one update
    #[arg(long, default_value_t = 1, value_parser = whole(1..=4096))]
    pub accumulate: usize,
    #[command(flatten)]
    pub length: Length,
    /// The learning rate's greatest value
    #[arg(long, value_parser = above_zero)]
    pub learning_rate: Option<f64>,
    /// How the learning rate goes on after its warm-up
    #[arg(long, value_enum, default_value_t = ScheduleName::Linear)]
    pub schedule: ScheduleName,
    /// Updates over which the learning rate rises from 0; below 1, a share of all; 0 is none
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    pub warmup: f64,
    /// AdamW's decay of matrices; biases and norms are not decayed; 0 is none
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    pub weight_decay: f64,
    /// Scale gradients down to this norm; 0 turns it off
    #[arg(long, default_value_t = 1.0, value_parser = at_least_zero)]
    pub clip: f64,
    /// Recompute each block in the backward pass: less memory, a third more time
    #[arg(long)]
    pub checkpoint_blocks: bool,
    /// Put several whole rows into one, up to --max-length
    #[arg(long)]
    pub packing: bool,
    /// Take rows in the files' order
    #[arg(long)]
    pub no_shuffle: bool,
    /// Rows held out for validation: a number, or a share below 1; 0 is none
    #[arg(long, default_value_t = 0.05, value_parser = at_least_zero)]
    pub validation: f64,
    /// Go on from the checkpoint in --out; with --schedule constant, --steps and --epochs may be more than before
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    #[command(flatten)]
    pub overwrite: Overwrite,
    /// Write a checkpoint every so many updates; 0 is only by time and at the end
    #[arg(long, default_value_t = 100, value_parser = whole(0..=1_000_000_000), value_name = "UPDATES")]
    pub save_every: usize,
    /// Write a checkpoint whenever so many minutes have passed since the last; 0 is only by updates and at the end
    #[arg(long, default_value_t = 5.0, value_parser = at_least_zero, value_name = "MINUTES")]
    pub save_minutes: f64,
    /// Time every kernel of three updates after the first: prints a table, and writes a trace for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

/// What is trained, on what, and where it goes.
pub struct Job<'a> {
    pub model: &'a Tuned,
    pub data: Prepared,
    pub out: &'a Path,
    pub seed: u64,
    /// Tokens of the longest row.
    pub max_length: usize,
    pub default_learning_rate: f64,
    pub given: &'a Given,
    /// Hashes of what the options name beside the data.
    pub hashes: Vec<(&'static str, String)>,
}

/// The names of [`Schedule`].
#[derive(Clone, Copy, ValueEnum)]
pub enum ScheduleName {
    /// It stays
    Constant,
    /// It falls in a straight line to 0
    Linear,
    /// It falls to 0 along half a cosine
    Cosine,
}

/// What a run came to.
#[derive(Serialize)]
pub struct Report {
    pub out: PathBuf,
    pub device: String,
    /// What products rounded their operands to.
    pub matmul_precision: MatmulPrecision,
    pub steps: usize,
    pub trained_parameters: usize,
    pub all_parameters: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_before: Option<Evaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_after: Option<Evaluation>,
    pub first_loss: Option<f64>,
    pub last_loss: Option<f64>,
    pub tokens_per_second: f64,
    pub peak_tensor_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_process_bytes: Option<u64>,
}

impl Training {
    /// How many rows are held out.
    pub fn held_out(&self) -> HeldOut {
        if self.validation >= 1.0 { HeldOut::Count(self.validation as usize) } else { HeldOut::Fraction(self.validation) }
    }

    /// Checks, before any work, that the run can begin in `out` and write its files, and that none of the folders that are
    /// `read` is written.
    pub fn check(&self, out: &Path, read: &[&Path]) -> Result<(), Box<dyn std::error::Error>> {
        let advice = "--resume goes on with a run, --overwrite replaces what wgtune wrote";
        check_folder(out, self.begin(), read, advice)?;
        self.profile.as_deref().map_or(Ok(()), |file| self.overwrite.check_file(file))
    }

    fn begin(&self) -> Begin {
        if self.resume { Begin::Resumed } else { self.overwrite.begin() }
    }

    /// Runs it: validation, training, validation; then `write` writes what was trained, before another run may have the folder.
    pub fn run(
        &self,
        job: Job<'_>,
        write: impl FnOnce() -> wgtune_models::Result<()>,
    ) -> Result<Report, Box<dyn std::error::Error>> {
        let Job { model, data, out, seed, max_length, default_learning_rate, given, mut hashes } = job;
        let interrupted = on_interrupt("this step")?;
        let batches = |shuffle: bool| Options {
            batch_size: self.batch_size,
            packing: self.packing.then_some(max_length),
            shuffle,
            seed,
            padding: data.padding,
        };
        hashes.extend([("data", data.rows), ("examples", fingerprint(&data.training))]);
        let ends: Vec<u32> = data.ends.iter().map(|(id, _)| *id).collect();
        let stops = data.training.iter().any(|example| example.learns(&ends));
        let loader = Loader::new(data.training, batches(!self.no_shuffle));
        let recipe = self.recipe(&loader, seed, default_learning_rate);
        let rate = &recipe.learning_rate;
        let resolved = [
            ("steps", recipe.steps.into()),
            // They became steps.
            ("epochs", Value::Null),
            ("max-length", max_length.into()),
            ("learning-rate", rate.peak.into()),
            ("warmup", rate.warmup_steps.into()),
        ];
        let record = given.record(resolved, hashes);
        let rise: &[&str] = if recipe.learning_rate.schedule == Schedule::Constant { &["steps"] } else { &[] };
        let may = May { rise, differ: &MAY_DIFFER };
        if let Some(file) = &given.file {
            file.record.check_hashes(&file.path, &record, &may)?;
        }
        let mut run = RunDirectory::open(out, self.begin(), record, &may)?;
        let mut progress = Progress::new(model, &recipe);
        if self.resume {
            run.changes().iter().for_each(|change| note(format!("changed: {change}")));
            match run.resume(model, &mut progress)? {
                true => note(format!("resumed after step {} of {}", progress.step, recipe.steps)),
                false => note(format!("no checkpoint in {}: starting from the beginning", out.display())),
            }
            if progress.step > recipe.steps {
                let (place, at, steps) = (out.display(), progress.step, recipe.steps);
                return Err(format!("the checkpoint in {place} is of step {at}: expected one of at most {steps}").into());
            }
        }

        if !data.ends.is_empty() && !stops {
            let ends: Vec<String> = data.ends.into_iter().map(|(_, piece)| piece).collect();
            note(format!(
                "no token that ends a text is learnt: expected {} in some row, or an answer may not stop",
                listed(&ends)
            ));
        }
        let (trained, all) = model.sizes();
        let share = 100.0 * trained as f64 / all as f64;
        note(format!("training {trained} of {all} parameters ({share:.2} %) on {}", model.decoder.device().name()));
        let validation = (!data.validation.is_empty()).then(|| Loader::new(data.validation, batches(false)));
        let validation_before = match progress.step {
            0 => validate(model, validation.as_ref(), "before", &interrupted)?,
            _ => None,
        };
        let metrics = self.train(model, &loader, &recipe, &mut progress, &run, &interrupted)?;
        let validation_after = validate(model, validation.as_ref(), "after", &interrupted).map_err(|error| match error {
            Error::Interrupted => stopped(&run, progress.step, recipe.steps),
            error => error.into(),
        })?;
        run.begin_results()?;
        write()?;
        let mut speeds: Vec<f64> = metrics.iter().map(|metrics| metrics.tokens_per_second).collect();
        speeds.sort_by(f64::total_cmp);
        Ok(Report {
            out: out.to_path_buf(),
            device: model.decoder.device().name().to_string(),
            matmul_precision: model.decoder.device().matmul_precision(),
            steps: progress.step,
            trained_parameters: trained,
            all_parameters: all,
            validation_before,
            validation_after,
            first_loss: metrics.first().map(|metrics| metrics.loss),
            last_loss: metrics.last().map(|metrics| metrics.loss),
            tokens_per_second: speeds.get(speeds.len() / 2).copied().unwrap_or(0.0),
            peak_tensor_bytes: metrics.iter().map(|metrics| metrics.peak_tensor_bytes).max().unwrap_or(0),
            peak_process_bytes: process::memory().map(|memory| memory.peak),
        })
    }

    fn train(
        &self,
        model: &Tuned,
        loader: &Loader,
        recipe: &Recipe,
        progress: &mut Progress,
        run: &RunDirectory,
        interrupted: &AtomicBool,
    ) -> Result<Vec<Metrics>, Box<dyn std::error::Error>> {
        let mut seen = Vec::new();
        let mut bar = progress::Progress::new("training", recipe.steps, progress.step);
        let profiler = |file| Profiler::new(file, model.decoder.device(), progress.step + 1);
        let mut profiler = self.profile.as_deref().map(profiler).transpose()?;
        let mut failed = None;
        let mut on_step = |metrics: &Metrics| {
            if let Some(profiler) = &mut profiler {
                failed = failed.take().or(profiler.after(metrics.step).err());
            }
            bar.advance(&format!("loss {:.4}, {:.0} tokens/s", metrics.loss, metrics.tokens_per_second));
            seen.push(metrics.clone());
            unless(interrupted)
        };
        train(model, loader, recipe, progress, run, &mut on_step)?;
        drop(bar);
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(profiler) = profiler {
            profiler.finish()?;
        }
        if progress.step < recipe.steps {
            return Err(stopped(run, progress.step, recipe.steps));
        }
        Ok(seen)
    }

    fn recipe(&self, loader: &Loader, seed: u64, default_learning_rate: f64) -> Recipe {
        let updates_per_epoch = loader.batches_per_epoch() as f64 / self.accumulate as f64;
        let steps = self.steps.unwrap_or_else(|| (updates_per_epoch * self.epochs).ceil().max(1.0) as usize);
        let warmup = if self.warmup < 1.0 { (self.warmup * steps as f64).ceil() } else { self.warmup };
        let schedule = match self.schedule {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Linear => Schedule::Linear,
            ScheduleName::Cosine => Schedule::Cosine,
        };
        Recipe {
            steps,
            accumulate: self.accumulate,
            learning_rate: LearningRate {
                peak: self.learning_rate.unwrap_or(default_learning_rate),
                warmup_steps: warmup as usize,
                total_steps: steps,
                schedule,
            },
            weight_decay: self.weight_decay,
            clip: self.clip,
            checkpoint_blocks: self.checkpoint_blocks,
            seed,
            save_every: self.save_every,
            save_after: Duration::try_from_secs_f64(60.0 * self.save_minutes).unwrap_or(Duration::MAX),
        }
    }
}

/// The loss on the rows held out, told on standard error.
fn validate(
    model: &Tuned,
    loader: Option<&Loader>,
    when: &str,
    interrupted: &AtomicBool,
) -> wgtune_models::Result<Option<Evaluation>> {
    let Some(loader) = loader else { return Ok(None) };
    let count = loader.batches_per_epoch();
    let mut bar = progress::Progress::new("validating", count, 0);
    let mut on_batch = || {
        bar.advance("");
        unless(interrupted)
    };
    let evaluation = evaluate(model, (0..count).map(|index| loader.batch(index)), &mut on_batch)?;
    drop(bar);
    let Evaluation { loss, perplexity, trained_tokens, .. } = evaluation;
    note(format!("validation {when}: loss {loss:.4}, perplexity {perplexity:.2} ({})", counted(trained_tokens, "trained token")));
    Ok(Some(evaluation))
}

/// Goes on unless that was interrupted.
pub fn unless(interrupted: &AtomicBool) -> ControlFlow<()> {
    if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// How an interrupted run ends.
fn stopped(run: &RunDirectory, step: usize, steps: usize) -> Box<dyn std::error::Error> {
    let place = run.path().display();
    let how =
        format!("stopped after step {step} of {steps}: the checkpoint is in {place}; the same command with --resume goes on");
    Stopped(how).into()
}

/// Batches of examples that are only evaluated.
pub fn evaluation_loader(examples: Vec<Example>, batch_size: usize, padding: u32) -> Loader {
    Loader::new(examples, Options { batch_size, packing: None, shuffle: false, seed: 0, padding })
}

impl Report {
    /// The figures for a reader.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("wrote {} after {} on {}", self.out.display(), counted(self.steps, "step"), self.device)];
        if let (Some(before), Some(after)) = (&self.validation_before, &self.validation_after) {
            lines.push(format!(
                "validation loss {:.4} -> {:.4}, perplexity {:.2} -> {:.2}",
                before.loss, after.loss, before.perplexity, after.perplexity
            ));
        }
        if let (Some(first), Some(last)) = (self.first_loss, self.last_loss) {
            lines.push(format!("training loss {first:.4} -> {last:.4}"));
        }
        if self.first_loss.is_some() {
            let process = self.peak_process_bytes.map_or(String::new(), |peak| format!(", {} of the process", bytes(peak)));
            let tensors = bytes(self.peak_tensor_bytes);
            lines.push(format!("{:.0} tokens/s, {tensors} of tensors at most{process}", self.tokens_per_second));
        }
        lines
    }
}
