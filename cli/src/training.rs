//! What training commands share: the options of a run, and what they make of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use wgtune_models::data::split::HeldOut;
use wgtune_models::formats::chat_template::TEMPLATE_FILE;
use wgtune_models::formats::files::{read_bytes, write_bytes};
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::model::Model;
use wgtune_models::peft::Tuned;
use wgtune_models::train::recipe::Recipe;
use wgtune_models::train::run::{Begin, check_idle};
use wgtune_models::train::samples::Samples;
use wgtune_models::train::schedule::{LearningRate, Schedule};
use wgtune_models::train::trainer::Plan;

use crate::common::{Overwrite, check_folder};
use crate::config::{ConfigFile, Given};
use crate::data::Length;
use crate::numbers::{above_zero, at_least_zero, whole};
use crate::probes::Probes;

/// The most batches behind an update.
pub const MOST_ACCUMULATED: usize = 4096;

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
    #[arg(long, default_value_t = 1, value_parser = whole(1..=MOST_ACCUMULATED))]
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
    /// Take rows in the files' order
    #[arg(long)]
    pub no_shuffle: bool,
    /// Rows held out for validation: a number, or a share below 1; 0 is none
    #[arg(long, default_value_t = 0.05, value_parser = at_least_zero)]
    pub validation: f64,
    /// Evaluate on the rows held out every so many updates too, and end with the weights that did best; 0 is only before and after
    #[arg(long, default_value_t = 0, value_parser = whole(0..=1_000_000_000), value_name = "UPDATES")]
    pub eval_every: usize,
    /// Stop once so many evaluations in a row brought nothing better; 0 is never
    #[arg(long, default_value_t = 0, value_parser = whole(0..=1_000_000_000), value_name = "EVALUATIONS")]
    pub patience: usize,
    /// End with the last weights, also where --eval-every found better ones
    #[arg(long)]
    pub keep_last: bool,
    /// Continue this text at every evaluation, by 32 tokens, always the most likely: on standard error, and in samples.jsonl (can be
    /// given again)
    #[arg(long, value_name = "TEXT")]
    pub sample_prompt: Vec<String>,
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
    /// Checkpoints that stay: those before the last as checkpoint-STEP, from which a run goes on once it is renamed to checkpoint
    #[arg(long, default_value_t = 1, value_parser = whole(1..=1_000_000), value_name = "CHECKPOINTS")]
    pub keep: usize,
    /// Write no events for TensorBoard, which reads those in --out by `tensorboard --logdir`
    #[arg(long)]
    pub no_tensorboard: bool,
    /// Time every kernel of three updates after the first: prints a table, and writes a trace for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

/// What is trained, on what, and where it goes.
pub struct Job<'a, R> {
    /// What begins each line that is said of it, where there are several.
    pub label: String,
    pub training: &'a Training,
    pub model: Tuned,
    pub recipe: R,
    pub out: PathBuf,
    pub seed: u64,
    /// Tokens of the longest row.
    pub max_length: usize,
    pub default_learning_rate: f64,
    pub given: &'a Given,
    /// What was chosen of the method.
    pub chosen: Vec<(&'static str, Value)>,
    /// What the model is asked on the way.
    pub samples: Option<Samples<'a>>,
    /// What is scored beside, before and after.
    pub probes: Probes,
    /// Hashes of what the options name.
    pub hashes: Vec<(&'static str, String)>,
    /// Writes what was trained into `out`.
    pub write: Write<'a>,
}

/// What writes a model that was trained on this base, with what belongs to it, into a folder.
pub fn writing<'a>(base: &'a Model, weights: &'a str, out: &'a Path, template: Option<&'a Path>) -> Write<'a> {
    Box::new(move |model| {
        model.write(Some(weights), out)?;
        base.copy_companions(out, !model.method.is_adapter())?;
        // Whoever asks the model is to ask it as it was trained.
        template.map_or(Ok(()), |file| write_bytes(&out.join(TEMPLATE_FILE), &read_bytes(file)?))
    })
}

/// Writes what was trained.
pub type Write<'a> = Box<dyn Fn(&Tuned) -> wgtune_models::Result<()> + 'a>;

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
        // Before any of several is begun.
        check_idle(out)?;
        self.profile.as_deref().map_or(Ok(()), |file| self.overwrite.check_file(file))
    }

    /// Checks that what is to be evaluated on the way can be.
    pub fn check_evaluation(&self) -> Result<(), String> {
        if self.eval_every > 0 && self.validation == 0.0 && self.sample_prompt.is_empty() {
            return Err("--eval-every without rows to evaluate on: expected --validation above 0, or --sample-prompt".into());
        }
        if self.patience > 0 && (self.eval_every == 0 || self.validation == 0.0) {
            return Err("--patience counts evaluations on the way: expected --eval-every above 0, and --validation".into());
        }
        Ok(())
    }

    /// The model's tokenizer, where it is needed for samples.
    pub fn tokenizer(&self, model: &Model) -> Result<Option<Tokenizer>, String> {
        let open = || model.tokenizer().map_err(|error| format!("--sample-prompt needs a tokenizer: {error}"));
        (!self.sample_prompt.is_empty()).then(open).transpose()
    }

    /// What the model is asked on the way.
    pub fn samples<'a>(&self, tokenizer: Option<&'a Tokenizer>, model: &Tuned) -> wgtune_models::Result<Option<Samples<'a>>> {
        let tokenizer = tokenizer.filter(|_| !self.sample_prompt.is_empty());
        tokenizer.map(|tokenizer| Samples::new(tokenizer, &self.sample_prompt, model)).transpose()
    }

    /// How the run's folder is opened.
    pub fn begin(&self) -> Begin {
        if self.resume { Begin::Resumed } else { self.overwrite.begin() }
    }

    /// How many updates it makes, with so many batches an epoch.
    pub fn updates(&self, batches_per_epoch: usize) -> usize {
        let per_epoch = batches_per_epoch as f64 / self.accumulate as f64;
        self.steps.unwrap_or_else(|| (per_epoch * self.epochs).ceil().max(1.0) as usize)
    }

    /// How it goes, with these batches.
    pub fn schedule_of(&self, recipe: &impl Recipe, seed: u64, default_learning_rate: f64) -> Plan {
        let steps = self.updates(recipe.batches_per_epoch());
        let warmup = if self.warmup < 1.0 { (self.warmup * steps as f64).ceil() } else { self.warmup };
        let schedule = match self.schedule {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Linear => Schedule::Linear,
            ScheduleName::Cosine => Schedule::Cosine,
        };
        Plan {
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
            eval_every: self.eval_every,
            patience: self.patience,
            keep_last: self.keep_last,
            save_every: self.save_every,
            save_after: Duration::try_from_secs_f64(60.0 * self.save_minutes).unwrap_or(Duration::MAX),
        }
    }
}
