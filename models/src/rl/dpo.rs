//! Direct preference optimisation: a policy learns from pairs of answers without a reward model, beside a reference.
//! Rafailov et al. 2023, arXiv:2305.18290.

use wgtune_engine::{Tensor, ops};

use super::comparisons::{Comparisons, Pairs};
use super::loss::PairLoss;
use super::reference::Reference;
use crate::error::Result;
use crate::peft::Tuned;
use crate::train::answers::Answers;
use crate::train::evaluate::evaluate;
use crate::train::metrics::Evaluation;
use crate::train::recipe::{Loss, OnBatch, Recipe};
use crate::train::run::RunDirectory;
use crate::transformer::Decoder;

/// The recipe.
pub struct Dpo {
    /// What is trained on.
    pub training: Comparisons,
    /// What was held out.
    pub validation: Option<Comparisons>,
    /// Which loss.
    pub loss: &'static PairLoss,
    /// How dear it is to leave the reference.
    pub beta: f32,
    /// The share of labels that may be wrong.
    pub smoothing: f32,
    /// What the cross-entropy of the better answer weighs beside it; 0 is nothing.
    pub sft: f32,
    /// What is not to be left.
    pub reference: Reference,
    /// Answers that go through the reference at once.
    pub batch_size: usize,
}

impl Recipe for Dpo {
    type Batch = Pairs;

    fn batch(&self, index: usize) -> Pairs {
        self.training.batch(index)
    }

    fn batches_per_epoch(&self) -> usize {
        self.training.batches_per_epoch()
    }

    fn has_dropout(&self) -> bool {
        false
    }

    fn begin(&mut self, model: &Tuned, step: usize, run: &RunDirectory, on_batch: &mut OnBatch) -> Result<()> {
        let Self { training, validation, reference, batch_size, .. } = self;
        reference.tell(training, validation.as_mut(), *batch_size, (model, step), run, on_batch)
    }

    fn loss(&self, decoder: &Decoder, pairs: &Pairs, hidden: &Tensor) -> Loss {
        let answers = Answers::of(&pairs.answers);
        let log_probs = answers.log_probs(decoder, hidden, 1.0).log_probs;
        let sums = answers.sums(&log_probs);
        let log_ratios = ops::sub(&sums, &pairs.reference(decoder.device()));
        let compared = if self.loss.is_mean { answers.per_token(&log_ratios) } else { log_ratios.clone() };
        let [chosen, rejected] = pairs.sides(&compared);
        let mut losses = (self.loss.of)(&ops::sub(&chosen, &rejected), self.beta, self.smoothing);
        if self.sft > 0.0 {
            // A mean over the better answers' tokens, whatever answer they are of.
            let [chosen, _] = pairs.sides(&sums);
            losses = ops::sub(&losses, &ops::scale(&chosen, self.sft / pairs.chosen_tokens(&answers.lengths)));
        }
        let [chosen, rejected] = pairs.sides(&ops::scale(&log_ratios.detach(), self.beta));
        let [log_chosen, log_rejected] = pairs.sides(&sums.detach());
        let figures = vec![
            ("rewards/chosen", pairs.sum(&chosen)),
            ("rewards/rejected", pairs.sum(&rejected)),
            ("rewards/margins", pairs.sum(&ops::sub(&chosen, &rejected))),
            (ACCURACIES, pairs.sum(&ops::greater(&chosen, &rejected))),
            ("logps/chosen", pairs.sum(&log_chosen)),
            ("logps/rejected", pairs.sum(&log_rejected)),
        ];
        Loss { sum: pairs.sum(&losses), figures }
    }

    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        let loss = |decoder: &Decoder, pairs: &Pairs, hidden: &Tensor| self.loss(decoder, pairs, hidden);
        self.validation.as_ref().map(|held_out| evaluate(model, held_out.batches(), loss, on_batch)).transpose()
    }
}

/// The share of pairs whose better answer the policy came to prefer.
pub const ACCURACIES: &str = "rewards/accuracies";
