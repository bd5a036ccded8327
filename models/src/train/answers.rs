//! What a model makes of the tokens of answers: those of a batch that carry a loss, and no others.

use wgtune_engine::{Device, Tensor, ops};

use super::pass::{self, Lesson};
use super::recipe::OnBatch;
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::data::encode::Example;
use crate::error::{Error, Result};
use crate::peft::Tuned;
use crate::transformer::Decoder;

/// The N tokens of the answers of a batch of R rows, row by row. Nothing is padded.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The tokens [N].
    pub tokens: Vec<u32>,
    /// How many each row has [R].
    pub lengths: Vec<usize>,
    /// Where in the batch [B, T] what predicts each token is [N].
    places: Vec<u32>,
    /// The row of each [N].
    owners: Vec<u32>,
}

impl Answers {
    /// Those of a batch.
    pub fn of(batch: &Batch) -> Answers {
        let mut answers = Answers { tokens: Vec::new(), lengths: vec![0; batch.rows], places: Vec::new(), owners: Vec::new() };
        for (place, &token) in batch.targets.iter().enumerate().filter(|(_, token)| **token != IGNORE) {
            let row = place / batch.length;
            answers.tokens.push(token);
            answers.places.push(place as u32);
            answers.owners.push(row as u32);
            answers.lengths[row] += 1;
        }
        answers
    }

    /// Those of all choices of each row of a batch of this length; the choices, row by row, are what has lengths and sums.
    fn of_choices(rows: &[&[&Example]], length: usize) -> Answers {
        let mut answers = Answers { tokens: Vec::new(), lengths: Vec::new(), places: Vec::new(), owners: Vec::new() };
        for (row, choices) in rows.iter().enumerate() {
            for example in *choices {
                let before = answers.tokens.len();
                for (place, &token) in example.labels.iter().skip(1).enumerate().filter(|(_, token)| **token != IGNORE) {
                    answers.tokens.push(token);
                    answers.places.push((row * length + place) as u32);
                    answers.owners.push(answers.lengths.len() as u32);
                }
                answers.lengths.push(answers.tokens.len() - before);
            }
        }
        answers
    }

    /// The hidden states [N, H] that predict the tokens, of those of the batch [B, T, H].
    pub fn hidden(&self, hidden: &Tensor) -> Tensor {
        let width = hidden.last_size();
        let flat = hidden.reshape([hidden.elements() / width, width]);
        ops::gather(&flat, &self.indices(hidden.device(), &self.places))
    }

    /// The tokens' log-probabilities [N], and the entropies of what was predicted, logits divided by `temperature`.
    pub fn log_probs(&self, decoder: &Decoder, hidden: &Tensor, temperature: f32) -> ops::LogProbs {
        let targets = self.indices(hidden.device(), &self.tokens);
        ops::log_probs(&self.hidden(hidden), decoder.output_weight(), &targets, temperature)
    }

    /// The sum [R] over each row's tokens of what is given of all [N].
    pub fn sums(&self, of_tokens: &Tensor) -> Tensor {
        let column = of_tokens.reshape([self.tokens.len(), 1]);
        ops::scatter_add(&column, &self.indices(of_tokens.device(), &self.owners), self.lengths.len())
            .reshape([self.lengths.len()])
    }

    /// The mean over each row's tokens, likewise.
    pub fn means(&self, of_tokens: &Tensor) -> Tensor {
        self.per_token(&self.sums(of_tokens))
    }

    /// What is given of each row [R], over how many tokens it has.
    pub fn per_token(&self, of_rows: &Tensor) -> Tensor {
        let shares: Vec<f32> = self.lengths.iter().map(|&length| 1.0 / length.max(1) as f32).collect();
        ops::mul(of_rows, &of_rows.device().tensor(&shares, [shares.len()]))
    }

    /// For each token [N] what is given of its row [R].
    pub fn spread(&self, of_rows: &Tensor) -> Tensor {
        let column = of_rows.reshape([self.lengths.len(), 1]);
        ops::gather(&column, &self.indices(of_rows.device(), &self.owners)).reshape([self.tokens.len()])
    }

    fn indices(&self, device: &Device, indices: &[u32]) -> Tensor {
        device.tensor_u32(indices, [indices.len()])
    }
}

/// The hidden states [B, H] of each row's last token, of those of the batch [B, T, H]: told by its length, whatever fills the padding.
pub fn last(batch: &Batch, hidden: &Tensor) -> Tensor {
    let last = |(row, length): (usize, &u32)| (row * batch.length) as u32 + length.saturating_sub(1);
    let places: Vec<u32> = batch.lengths.iter().enumerate().map(last).collect();
    let flat = hidden.reshape([batch.rows * batch.length, hidden.last_size()]);
    ops::gather(&flat, &hidden.device().tensor_u32(&places, [batch.rows]))
}

/// The summed log-probability of each example's tokens that carry loss, so many at once. Neighbours that differ in their last token
/// alone, as letters to choose from do, count as one.
///
/// # Errors
/// [`Error::Interrupted`] where `on_batch` breaks, or a device that failed.
pub fn log_probs(model: &Tuned, examples: &[&Example], batch_size: usize, on_batch: &mut OnBatch) -> Result<Vec<f32>> {
    let model = model.detach();
    let rows: Vec<&[&Example]> = examples.chunk_by(|one, other| are_choices(one, other)).collect();
    let batches = rows.chunks(batch_size.max(1));
    let (count, mut sums) = (batches.len(), Vec::with_capacity(examples.len()));
    for (index, rows) in batches.enumerate() {
        // Padding carries no loss, whatever fills it.
        let batch = Batch::of_rows(&rows.iter().map(|choices| vec![choices[0]]).collect::<Vec<_>>(), 0);
        let hidden = pass::hidden(&model.decoder, &[(batch.rows(), model.method.tuning(None))], false).remove(0);
        let answers = Answers::of_choices(rows, batch.length);
        sums.extend(answers.sums(&answers.log_probs(&model.decoder, &hidden, 1.0).log_probs).to_vec()?);
        if on_batch(index + 1, count).is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(sums)
}

/// Whether texts differ in their last token alone, if at all: a model says the same of all before.
fn are_choices(one: &Example, other: &Example) -> bool {
    let before = [one, other].map(|example| example.ids.split_last().map(|(_, before)| before));
    before[0] == before[1]
}
