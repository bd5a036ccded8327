//! What commands share that learn from rows which somebody judged.

use std::path::{Path, PathBuf};

use clap::Args;
use wgtune_models::data::encode::{Encoder, Example};
use wgtune_models::data::rows::{Dataset, Format, Row};
use wgtune_models::data::split::split;
use wgtune_models::formats::chat_template::TEMPLATE_FILE;
use wgtune_models::formats::files::{read_bytes, write_bytes};
use wgtune_models::model::Model;
use wgtune_models::peft::Tuned;
use wgtune_models::rl::reference::Reference;
use wgtune_models::rl::reward;
use wgtune_models::train::trainer::Recipe;

use crate::common::{Compute, Outcome, print_json, print_line};
use crate::config::Given;
use crate::data::{Coder, Conversations, Source, fingerprint};
use crate::probes::Probes;
use crate::runs;
use crate::training::{Job, Training};
use crate::tuning::Tuning;

/// What is learnt by, from what, and how.
#[derive(Args)]
pub struct Learning {
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
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    training: Training,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

/// What sets one such command apart.
pub struct Kind {
    /// The forms of its rows.
    pub wanted: &'static [Format],
    /// Its learning rate unless given, in that of supervised tuning by the same method.
    pub rate: f64,
    /// Whether the model learns to give scores.
    pub scores: bool,
}

/// What a recipe is made of.
pub struct Ground<'a> {
    pub dataset: &'a Dataset,
    /// Rows to train on.
    pub training: &'a [Row],
    /// Rows held out.
    pub validation: &'a [Row],
    pub encoder: Encoder<'a>,
    /// What padding is filled with.
    pub padding: u32,
    pub batch_size: usize,
    /// What the order of each epoch depends on; none is the rows'.
    pub order: Option<u64>,
    pub max_length: usize,
    /// Where the model that the run begins with stands.
    pub reference: Reference,
}

impl Learning {
    /// Trains, writes the result and says what it came to. `make` makes the recipe, and tells the examples that became of the rows.
    pub fn run<R: Recipe>(
        &self,
        given: &Given,
        kind: &Kind,
        make: impl FnOnce(Ground) -> wgtune_models::Result<(R, Vec<Example>)>,
    ) -> Outcome {
        let Learning { source, conversations, out, tuning, training, compute, .. } = self;
        let read: Vec<&Path> = [self.model.as_path()].into_iter().chain(tuning.read()).collect();
        training.check(out, &read)?;
        training.check_evaluation()?;
        self.check(kind)?;
        let base = if kind.scores { Model::open_any(&self.model)? } else { Model::open(&self.model)? };
        let max_length = training.length.of(base.blueprint())?;
        let tokenizer = training.tokenizer(&base)?;
        let device = compute.open()?;
        let weights = base.hash_weights()?;
        let bare = base.load(&device)?.decoder;
        let begun = match kind.scores && !base.blueprint().scores {
            true => reward::begin(&bare, compute.seed),
            false => bare.clone(),
        };
        let model = tuning.begin(&base, begun, compute.seed)?;
        let dataset = source.read_wanting(model.template.as_deref(), kind.wanted)?;
        let coder = Coder::open(&base, Some(&model), &dataset, conversations, max_length)?;
        let (rows, held_out) = split(dataset.rows.clone(), training.held_out(), compute.seed)?;
        let is_beside = model.method.is_adapter() && tuning.adapter.is_none();
        let ground = Ground {
            dataset: &dataset,
            training: &rows,
            validation: &held_out,
            encoder: coder.encoder(),
            padding: coder.padding(),
            batch_size: training.batch_size,
            order: (!training.no_shuffle).then_some(compute.seed),
            max_length,
            reference: if is_beside { Reference::Beside(Tuned::bare(bare)) } else { Reference::Itself },
        };
        let (recipe, examples) = make(ground)?;
        let hashes = [
            Some(("model", base.fingerprint(&weights))),
            tuning.hash()?,
            Some(("data", dataset.fingerprint())),
            Some(("examples", fingerprint(&examples))),
        ];
        let samples = training.samples(tokenizer.as_ref(), &model)?;
        let write = |model: &Tuned| {
            model.write(Some(&weights), out)?;
            base.copy_companions(out, !model.method.is_adapter())?;
            // Whoever asks the model is to ask it as it was trained.
            let template = conversations.template.template.as_deref();
            template.map_or(Ok(()), |file| write_bytes(&out.join(TEMPLATE_FILE), &read_bytes(file)?))
        };
        let job = Job {
            label: String::new(),
            training,
            model,
            recipe,
            out: out.clone(),
            seed: compute.seed,
            max_length,
            default_learning_rate: kind.rate * tuning.method.learning_rate,
            given,
            chosen: tuning.resolved(),
            samples,
            probes: Probes::default(),
            hashes: hashes.into_iter().flatten().collect(),
            write: Box::new(write),
        };
        let report = runs::run(vec![job])?.remove(0).report?;
        if self.json { print_json(&report) } else { report.lines().iter().try_for_each(|line| print_line(line)) }
    }

    fn check(&self, kind: &Kind) -> Result<(), String> {
        if self.source.weights()?.is_some() {
            return Err("--data has weights, and rows that were judged are not mixed: expected names of files alone".into());
        }
        if self.tuning.task.is_some() {
            return Err("--task is one of a table that sft writes: expected a folder of its own as --out".into());
        }
        if kind.scores && !self.training.sample_prompt.is_empty() {
            return Err("--sample-prompt asks for texts, and a reward model gives scores: expected no such option".into());
        }
        Ok(())
    }
}
