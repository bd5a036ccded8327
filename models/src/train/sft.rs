//! Supervised fine-tuning: next-token cross-entropy on the tokens that carry a loss. Pretraining is the same on whole texts.

use wgtune_engine::{Tensor, ops};

use super::evaluate;
use super::metrics::Evaluation;
use super::recipe::{Loss, OnBatch, Recipe};
use crate::data::batch::{Batch, Loader};
use crate::data::mixture::Share;
use crate::error::Result;
use crate::peft::Tuned;
use crate::transformer::Decoder;

/// The recipe.
pub struct Sft {
    /// What is trained on.
    pub training: Loader,
    /// What was held out.
    pub validation: Option<Loader>,
}

impl Recipe for Sft {
    type Batch = Batch;

    fn batch(&self, index: usize) -> Batch {
        self.training.batch(index)
    }

    fn batches_per_epoch(&self) -> usize {
        self.training.batches_per_epoch()
    }

    fn shares(&self, batches: usize) -> Vec<Share> {
        self.training.shares(batches)
    }

    fn loss(&self, decoder: &Decoder, batch: &Batch, hidden: &Tensor) -> Loss {
        loss(decoder, batch, hidden)
    }

    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        self.validation.as_ref().map(|loader| evaluate(model, loader, on_batch)).transpose()
    }
}

/// The share of tokens that were the most likely.
pub const ACCURACY: &str = "mean_token_accuracy";
/// Of predictions, in nats.
pub const ENTROPY: &str = "entropy";
/// e^loss.
pub const PERPLEXITY: &str = "perplexity";

/// The mean cross-entropy in nats over a loader's batches, each token counted once, with its perplexity and the accuracy.
///
/// # Errors
/// As [`evaluate::evaluate`].
pub fn evaluate(model: &Tuned, loader: &Loader, on_batch: &mut OnBatch) -> Result<Evaluation> {
    let batches = (0..loader.batches_per_epoch()).map(|index| loader.batch(index));
    let mut evaluation = evaluate::evaluate(model, batches, loss, on_batch)?;
    evaluation.figures.remove(ENTROPY);
    evaluation.figures.insert(PERPLEXITY.into(), evaluation.loss.exp());
    Ok(evaluation)
}

/// The sum of the cross-entropies; the entropy is that of the predictions, and what is correct was the most likely token.
fn loss(decoder: &Decoder, batch: &Batch, hidden: &Tensor) -> Loss {
    let rows = batch.rows * batch.length;
    let targets = decoder.device().tensor_u32(&batch.targets, [rows]);
    let hidden = hidden.reshape([rows, hidden.last_size()]);
    let output = ops::linear_cross_entropy(&hidden, decoder.output_weight(), &targets);
    Loss { sum: output.loss, figures: vec![(ENTROPY, output.entropy), (ACCURACY, output.correct)] }
}
