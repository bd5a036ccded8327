//! Kahneman-Tversky optimisation: a policy learns from answers that are each called good or not, beside a reference.
//! Ethayarajh et al. 2024, arXiv:2402.01306.

use wgtune_engine::{Tensor, ops};

use super::labelled::{Judged, Labels};
use super::loss;
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
pub struct Kto {
    /// What is trained on.
    pub training: Labels,
    /// What was held out.
    pub validation: Option<Labels>,
    /// How dear it is to leave the reference.
    pub beta: f32,
    /// What a good answer weighs.
    pub good_weight: f32,
    /// What one that is not weighs.
    pub bad_weight: f32,
    /// What is not to be left.
    pub reference: Reference,
    /// Answers that go through the reference at once.
    pub batch_size: usize,
}

impl Recipe for Kto {
    type Batch = Judged;

    fn batch(&self, index: usize) -> Judged {
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

    /// How far the policy is from its reference is estimated by the answers that belong to other prompts, and is never below 0.
    fn loss(&self, decoder: &Decoder, judged: &Judged, hidden: &Tensor) -> Loss {
        let (device, count) = (decoder.device(), judged.count());
        let answers = Answers::of(&judged.answers);
        let sums = answers.sums(&answers.log_probs(decoder, hidden, 1.0).log_probs);
        let log_ratios = ops::sub(&sums, &device.tensor(&judged.reference, [2 * count]));
        let strangers = log_ratios.slice(0, count..2 * count).detach();
        let kl = ops::relu(&ops::mean(&strangers)).reshape([1]);
        let ratios = log_ratios.slice(0, 0..count);
        let good = judged.of_answers(device, &judged.good);
        let weights: Vec<f32> =
            judged.good.iter().map(|&good| if good > 0.0 { self.good_weight } else { self.bad_weight }).collect();
        let losses = loss::kto(&ratios, &good, &judged.of_answers(device, &weights), &kl, self.beta);
        let rewards = ops::scale(&ratios.detach(), self.beta);
        let bad = ops::sub(&ops::full(device, 1.0, [1]), &good);
        // A batch may have none of a kind: what it has counts by how many of all are of it.
        let mean = |of_kind: &Tensor, share: f32| ops::scale(&ops::sum(&ops::mul(&rewards, of_kind)), 1.0 / share.max(1e-9));
        let [good_share, bad_share] = judged.shares;
        let figures = vec![
            ("kl", ops::scale(&kl, count as f32)),
            ("rewards/chosen", mean(&good, good_share)),
            ("rewards/rejected", mean(&bad, bad_share)),
            ("rewards/margins", ops::sub(&mean(&good, good_share), &mean(&bad, bad_share))),
        ];
        Loss { sum: ops::sum(&losses), figures }
    }

    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        let loss = |decoder: &Decoder, judged: &Judged, hidden: &Tensor| self.loss(decoder, judged, hidden);
        self.validation.as_ref().map(|held_out| evaluate(model, held_out.batches(), loss, on_batch)).transpose()
    }
}
