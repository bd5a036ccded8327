//! What commands share that learn from rows which somebody judged.

use std::path::{Path, PathBuf};

use clap::Args;
use wgtune_models::data::encode::{Encoder, Example};
use wgtune_models::data::rows::{Dataset, Format, Row};
use wgtune_models::data::split::split;
use wgtune_models::model::Model;
use wgtune_models::peft::Tuned;
use wgtune_models::rl::comparisons::{Comparisons, comparisons};
use wgtune_models::rl::reference::Reference;
use wgtune_models::rl::reward;
use wgtune_models::train::recipe::Recipe;
use wgtune_models::wording::counted;

use crate::common::{Compute, Outcome, note};
use crate::config::Given;
use crate::data::{Coder, Conversations, Source, fingerprint};
use crate::probes::Probes;
use crate::report::Report;
use crate::runs::{self, Failure};
use crate::training::{Job, Training, writing};
use crate::tuning::Tuning;

/// What is learnt by, from what, and how.
#[derive(Args)]
pub struct Learning {
    /// A Hugging Face model directory: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub conversations: Conversations,
    /// Where the adapter or the model, metrics.jsonl and the checkpoint go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub training: Training,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
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

/// What is trained, and what is said of it.
pub struct Prepared<'a, R> {
    pub base: &'a Model,
    /// A hash of its weights.
    pub weights: &'a str,
    pub max_length: usize,
    pub model: Tuned,
    pub recipe: R,
    /// Its learning rate unless given, in that of supervised tuning by the same method.
    pub rate: f64,
    /// Hashes of what the options name.
    pub hashes: Vec<Option<(&'static str, String)>>,
}

impl Learning {
    /// Trains and writes the result. `make` makes the recipe, and tells the examples that became of the rows.
    pub fn run<R: Recipe>(
        &self,
        given: &Given,
        kind: &Kind,
        make: impl FnOnce(Ground) -> wgtune_models::Result<(R, Vec<Example>)>,
    ) -> Result<Report, Failure> {
        let Learning { source, conversations, tuning, training, compute, .. } = self;
        self.check_folders(&[])?;
        self.check_options()?;
        if kind.scores && !training.sample_prompt.is_empty() {
            return Err("--sample-prompt asks for texts, and a reward model gives scores: expected no such option".into());
        }
        let base = if kind.scores { Model::open_any(&self.model)? } else { Model::open(&self.model)? };
        let max_length = training.length.of(base.blueprint())?;
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
        let is_beside = model.method.is_adapter() && tuning.adapter.is_none() && !trains_own(&model);
        let ground = Ground {
            dataset: &dataset,
            training: &rows,
            validation: &held_out,
            encoder: coder.encoder(),
            padding: coder.padding(),
            batch_size: training.batch_size,
            order: (!training.no_shuffle).then_some(compute.seed),
            max_length,
            reference: if is_beside { Reference::Beside(Box::new(Tuned::bare(bare))) } else { Reference::Itself },
        };
        let (recipe, examples) = make(ground)?;
        let hashes = [
            Some(("model", base.fingerprint(&weights))),
            tuning.hash()?,
            Some(("data", dataset.fingerprint())),
            Some(("examples", fingerprint(&examples))),
        ];
        self.train(
            given,
            Prepared { base: &base, weights: &weights, max_length, model, recipe, rate: kind.rate, hashes: hashes.into() },
        )
    }

    /// Trains what is prepared and writes the result.
    pub fn train<R: Recipe>(&self, given: &Given, prepared: Prepared<R>) -> Result<Report, Failure> {
        let Learning { conversations, out, tuning, training, compute, .. } = self;
        let Prepared { base, weights, max_length, model, recipe, rate, hashes } = prepared;
        let tokenizer = training.tokenizer(base)?;
        let samples = training.samples(tokenizer.as_ref(), &model)?;
        let job = Job {
            label: String::new(),
            training,
            model,
            recipe,
            out: out.clone(),
            seed: compute.seed,
            max_length,
            default_learning_rate: rate * tuning.method.learning_rate,
            given,
            chosen: tuning.resolved(),
            samples,
            probes: Probes::default(),
            hashes: hashes.into_iter().flatten().collect(),
            write: writing(base, weights, out, conversations.template.template.as_deref()),
        };
        runs::one(job)
    }

    /// Checks, before any work, that the run can begin in its folder, beside those that are `read` too.
    pub fn check_folders(&self, read: &[&Path]) -> Outcome {
        let read: Vec<&Path> = [self.model.as_path()].into_iter().chain(self.tuning.read()).chain(read.iter().copied()).collect();
        self.training.check(&self.out, &read)
    }

    /// Checks that options go together: judged rows alone, without dropout, by which a model would differ from itself.
    pub fn check_options(&self) -> Outcome {
        self.training.check_evaluation()?;
        if self.source.weights()?.is_some() {
            return Err("--data has weights, and only sft and pretrain mix files: expected names of files alone".into());
        }
        if self.tuning.task.is_some() {
            return Err("--task is one of a table that sft writes: expected a folder of its own as --out".into());
        }
        let dropout = self.tuning.resolved().into_iter().find(|(name, _)| *name == "dropout");
        if dropout.and_then(|(_, value)| value.as_f64()).is_some_and(|share| share > 0.0) {
            return Err("--dropout makes a model differ from itself, with which it is compared here: expected none".into());
        }
        Ok(())
    }
}

/// Whether some of a model's own parameters are trained: whatever else reads them needs its own.
pub fn trains_own(model: &Tuned) -> bool {
    model.decoder.parameters().iter().any(|(name, _)| model.trains(name))
}

/// Says that no validation is made, where rows were held out for it and none is left.
pub fn note_validation(held_out: usize, left: usize) {
    if held_out > 0 && left == 0 {
        note(format!("no validation: of {} held out for it none is left", counted(held_out, "row")));
    }
}

/// The forms of rows of pairs and ranks.
pub const RANKED: &[Format] = &[Format::Preference, Format::Ranked];

/// The comparisons of the rows, and of those held out; and the answers to train on.
pub fn pairs(ground: &Ground) -> wgtune_models::Result<(Comparisons, Option<Comparisons>, Vec<Example>)> {
    let Ground { dataset, training, validation, encoder, padding, batch_size, order, .. } = ground;
    let (all, report) = comparisons(encoder, dataset, training)?;
    let (held_out, _) = comparisons(encoder, dataset, validation)?;
    note(&report);
    note_validation(validation.len(), held_out.len());
    if all.is_empty() {
        let message = format!("nothing to learn: {report}; expected rows whose answers differ within the length");
        return Err(wgtune_models::Error::Data { message });
    }
    let examples = all.iter().flat_map(|comparison| comparison.answers.clone()).collect();
    let held_out = (!held_out.is_empty()).then(|| Comparisons::new(held_out, *batch_size, None, *padding));
    Ok((Comparisons::new(all, *batch_size, *order, *padding), held_out, examples))
}
