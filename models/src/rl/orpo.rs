//! Odds-ratio preference optimisation: a policy learns the better answer, and at once that the other is less likely; it needs no
//! reference. Hong et al. 2024, arXiv:2403.07691.

use wgtune_engine::{Tensor, ops};

use super::comparisons::{Comparisons, Pairs};
use super::dpo::ACCURACIES;
use super::loss;
use crate::error::Result;
use crate::peft::Tuned;
use crate::train::answers::Answers;
use crate::train::evaluate::evaluate;
use crate::train::metrics::Evaluation;
use crate::train::recipe::{Loss, OnBatch, Recipe};
use crate::transformer::Decoder;

/// The recipe.
pub struct Orpo {
    /// What is trained on.
    pub training: Comparisons,
    /// What was held out.
    pub validation: Option<Comparisons>,
    /// What the odds weigh beside the cross-entropy; the paper's lambda.
    pub beta: f32,
}

impl Recipe for Orpo {
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

    /// The cross-entropy of the better answer's tokens, a mean over them, and the odds.
    fn loss(&self, decoder: &Decoder, pairs: &Pairs, hidden: &Tensor) -> Loss {
        let answers = Answers::of(&pairs.answers);
        let means = answers.means(&answers.log_probs(decoder, hidden, 1.0).log_probs);
        let [chosen, rejected] = pairs.sides(&means);
        let odds = loss::odds_ratio(&chosen, &rejected);
        let losses = ops::sub(&ops::scale(&odds, self.beta), &chosen);
        let [chosen, rejected] = [&chosen, &rejected].map(|side| ops::scale(&side.detach(), self.beta));
        let figures = vec![
            ("nll_loss", ops::neg(&pairs.sum(&ops::scale(&chosen, 1.0 / self.beta)))),
            ("log_odds_loss", pairs.sum(&odds.detach())),
            ("rewards/chosen", pairs.sum(&chosen)),
            ("rewards/rejected", pairs.sum(&rejected)),
            ("rewards/margins", pairs.sum(&ops::sub(&chosen, &rejected))),
            (ACCURACIES, pairs.sum(&ops::greater(&chosen, &rejected))),
        ];
        Loss { sum: pairs.sum(&losses), figures }
    }

    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        let loss = |decoder: &Decoder, pairs: &Pairs, hidden: &Tensor| self.loss(decoder, pairs, hidden);
        self.validation.as_ref().map(|held_out| evaluate(model, held_out.batches(), loss, on_batch)).transpose()
    }
}
