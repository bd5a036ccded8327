//! Supervised fine-tuning: next-token cross-entropy on the tokens that carry a loss. Pretraining is the same on whole texts.

use wgtune_engine::{Tensor, ops};

use super::metrics::{Evaluation, Figures};
use super::trainer::{Loss, OnBatch, Recipe};
use crate::data::batch::{Batch, Loader};
use crate::data::mixture::Share;
use crate::error::{Error, Result};
use crate::peft::Tuned;
use crate::transformer::{Decoder, Rows};

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

    fn tokens(&self, batch: &Batch) -> usize {
        batch.tokens()
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.trained_tokens()
    }

    fn shares(&self, batches: usize) -> Vec<Share> {
        self.training.shares(batches)
    }

    fn rows<'b>(&self, batch: &'b Batch) -> Rows<'b> {
        rows_of(batch)
    }

    fn loss(&self, decoder: &Decoder, batch: &Batch, hidden: &Tensor) -> Loss {
        let output = cross_entropy(decoder, batch, hidden);
        // The entropy is that of the predictions, and what is correct was the most likely token.
        Loss { sum: output.loss, figures: vec![("entropy", output.entropy), (ACCURACY, output.correct)] }
    }

    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        self.validation.as_ref().map(|loader| evaluate(model, loader, on_batch)).transpose()
    }
}

/// The share of tokens that were the most likely.
pub const ACCURACY: &str = "mean_token_accuracy";
/// e^loss.
pub const PERPLEXITY: &str = "perplexity";

/// The mean cross-entropy in nats over a loader's batches, each token counted once, with its perplexity and the accuracy.
///
/// # Errors
/// [`Error::Interrupted`] where `on_batch` breaks; no token that carries a loss, a loss that is not finite (naming the first op
/// whose output was not), or a device that failed.
pub fn evaluate(model: &Tuned, loader: &Loader, on_batch: &mut OnBatch) -> Result<Evaluation> {
    let model = model.detach();
    let (decoder, forward) = (&model.decoder, model.forward());
    let count = loader.batches_per_epoch();
    let (mut loss, mut correct, mut trained_tokens) = (0.0, 0.0, 0);
    for index in 0..count {
        let batch = loader.batch(index);
        let score = || cross_entropy(decoder, &batch, &decoder.hidden(&decoder.input(&rows_of(&batch), &forward), &forward));
        let output = score();
        let value = f64::from(output.loss.item()?);
        if !value.is_finite() {
            let first = decoder.device().first_non_finite(|| score().loss.item().map(drop))?;
            return Err(Error::NotFinite { place: format!("batch {}", index + 1), what: "loss", value, first });
        }
        loss += value;
        correct += f64::from(output.correct.item()?);
        trained_tokens += batch.trained_tokens();
        if on_batch(index + 1, count).is_break() {
            return Err(Error::Interrupted);
        }
    }
    if trained_tokens == 0 {
        return Err(Error::Data { message: "no token carries a loss: nothing to evaluate".into() });
    }
    let loss = loss / trained_tokens as f64;
    let figures = Figures::from([(PERPLEXITY, loss.exp()), (ACCURACY, correct / trained_tokens as f64)]);
    Ok(Evaluation { loss, figures, trained_tokens })
}

fn cross_entropy(decoder: &Decoder, batch: &Batch, hidden: &Tensor) -> ops::CrossEntropy {
    let rows = batch.rows * batch.length;
    let targets = decoder.device().tensor_u32(&batch.targets, [rows]);
    ops::linear_cross_entropy(&hidden.reshape([rows, hidden.last_size()]), decoder.output_weight(), &targets)
}

/// Padding stands at the end, where no real token looks, so attention needs no lengths.
pub(super) fn rows_of(batch: &Batch) -> Rows<'_> {
    let segments = batch.is_packed().then_some(&batch.segments[..]);
    Rows { count: batch.rows, ids: &batch.ids, positions: &batch.positions, segments }
}
