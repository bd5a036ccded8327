//! A reward model: a decoder that gives a text a score, learnt from answers that somebody ranked.
//! Ouyang et al. 2022, arXiv:2203.02155, section 3.4.

use wgtune_engine::random::Philox;
use wgtune_engine::{Tensor, ops};

use super::advantage::moments;
use super::comparisons::{Comparisons, Pairs};
use super::{loss, score};
use crate::data::encode::Example;
use crate::error::Result;
use crate::peft::Tuned;
use crate::train::answers::last;
use crate::train::metrics::{Evaluation, figures};
use crate::train::recipe::{Loss, OnBatch, Recipe};
use crate::transformer::Decoder;

/// The recipe.
pub struct Reward {
    /// What is trained on.
    pub training: Comparisons,
    /// What was held out.
    pub validation: Option<Comparisons>,
    /// What keeps scores around 0 weighs; 0 is nothing.
    pub centre: f32,
    /// Answers that are scored at once in an evaluation.
    pub batch_size: usize,
}

/// The share of pairs whose better answer has the higher score.
pub const ACCURACY: &str = "accuracy";

/// A decoder that gives scores, by a vector [1, H] that begins normal, with the deviation 1 / sqrt(H + 1): as Huang et al. 2024
/// (arXiv:2403.17031) have it from the code of Stiennon et al. 2020.
pub fn begin(decoder: &Decoder, seed: u64) -> Decoder {
    let width = decoder.blueprint().hidden_size;
    let (random, deviation) = (Philox::new(seed).stream(0x73636f7265), 1.0 / ((width + 1) as f32).sqrt());
    let values: Vec<f32> = (0..width as u64).map(|at| deviation * random.normal(at)).collect();
    decoder.scoring(decoder.device().tensor(&values, [1, width]))
}

impl Recipe for Reward {
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

    fn loss(&self, decoder: &Decoder, pairs: &Pairs, hidden: &Tensor) -> Loss {
        let scores = decoder.logits(&last(&pairs.answers, hidden));
        let [chosen, rejected] = pairs.sides(&scores);
        let losses = self.of(pairs, &chosen, &rejected);
        let [chosen, rejected] = [chosen.detach(), rejected.detach()];
        let figures = vec![
            (ACCURACY, pairs.sum(&ops::greater(&chosen, &rejected))),
            ("margin", pairs.sum(&ops::sub(&chosen, &rejected))),
            ("mean_reward", pairs.sum(&ops::scale(&ops::add(&chosen, &rejected), 0.5))),
        ];
        Loss { sum: pairs.sum(&losses), figures }
    }

    /// Beside loss and accuracy: how far the model is from as sure as it is right, and how much its scores go with length.
    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        let Some(held_out) = &self.validation else { return Ok(None) };
        let answers: Vec<&Example> = held_out.answers().collect();
        let texts: Vec<&[u32]> = answers.iter().map(|answer| answer.ids.as_slice()).collect();
        let scores = score::scores(model, &texts, self.batch_size, on_batch)?;
        let all = held_out.whole();
        let of_answers = model.decoder.device().tensor(&scores, [scores.len()]);
        let [chosen, rejected] = all.sides(&of_answers);
        let count = all.comparisons as f64;
        let loss = f64::from(all.sum(&self.of(&all, &chosen, &rejected)).item()?) / count;
        let surer: Vec<(f64, f64, f64)> = (all.chosen.iter().zip(&all.rejected).zip(&all.weights))
            .map(|((&chosen, &rejected), &weight)| {
                (f64::from(scores[chosen as usize]), f64::from(scores[rejected as usize]), f64::from(weight))
            })
            .collect();
        let lengths: Vec<f64> = answers.iter().map(|answer| answer.trained_tokens() as f64).collect();
        let of_scores: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
        let weighed = |of: &dyn Fn(f64, f64) -> f64| surer.iter().map(|(a, b, weight)| weight * of(*a, *b)).sum::<f64>() / count;
        let (mean, deviation) = moments(&of_scores);
        let figures = figures([
            (ACCURACY, weighed(&|a, b| f64::from(u8::from(a > b)))),
            ("margin", weighed(&|a, b| a - b)),
            ("mean_reward", mean),
            ("std_reward", deviation),
            ("calibration_error", calibration_error(&surer)),
            ("length_correlation", correlation(&of_scores, &lengths)),
        ]);
        let trained_tokens = answers.iter().map(|answer| answer.trained_tokens()).sum();
        Ok(Some(Evaluation { loss, figures, trained_tokens, samples: Vec::new() }))
    }
}

impl Reward {
    fn of(&self, pairs: &Pairs, chosen: &Tensor, rejected: &Tensor) -> Tensor {
        loss::reward(chosen, rejected, &pairs.of_pairs(chosen.device(), &pairs.margins), self.centre)
    }
}

/// By how much the share of right choices differs from how sure the model was of them, sigmoid(|a - b|), over ten bins from 0.5 to 1:
/// the expected calibration error of Guo et al. 2017, arXiv:1706.04599. Of scores of better and other answers, and weights.
fn calibration_error(pairs: &[(f64, f64, f64)]) -> f64 {
    const BINS: usize = 10;
    // Of each: the weight, what was right, how sure it was.
    let mut bins = [[0.0; 3]; BINS];
    for (better, other, weight) in pairs {
        let sure = 1.0 / (1.0 + (-(better - other).abs()).exp());
        let bin = &mut bins[(((sure - 0.5) * 2.0 * BINS as f64) as usize).min(BINS - 1)];
        let right = if better > other { 1.0 } else { 0.0 };
        [weight * 1.0, weight * right, weight * sure].iter().zip(bin).for_each(|(value, sum)| *sum += value);
    }
    let total: f64 = bins.iter().map(|[weight, ..]| weight).sum();
    bins.iter().map(|[_, right, sure]| (right - sure).abs()).sum::<f64>() / total.max(f64::MIN_POSITIVE)
}

/// Pearson's; 0 where one does not vary.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let ((mean_a, deviation_a), (mean_b, deviation_b)) = (moments(a), moments(b));
    let covariance: f64 =
        a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum::<f64>() / (a.len() as f64 - 1.0).max(1.0);
    let product = deviation_a * deviation_b;
    if product > 0.0 { covariance / product } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_as_sure_as_it_is_right_is_calibrated() {
        // sigmoid(ln 3) is 3/4: right three times of four.
        let sure = 3f64.ln();
        let (right, wrong) = ((sure, 0.0, 1.0), (0.0, sure, 1.0));
        assert!(calibration_error(&[right, right, right, wrong]) < 1e-12);
        assert!((calibration_error(&[right, wrong]) - 0.25).abs() < 1e-12);
        assert!((calibration_error(&[wrong]) - 0.75).abs() < 1e-12);
        assert_eq!(calibration_error(&[]), 0.0);
    }

    #[test]
    fn correlations_of_what_goes_along_against_and_not_at_all() {
        let rising = [1.0, 2.0, 3.0];
        assert!((correlation(&rising, &[10.0, 20.0, 30.0]) - 1.0).abs() < 1e-12);
        assert!((correlation(&rising, &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(correlation(&rising, &[5.0, 5.0, 5.0]), 0.0);
        assert!(correlation(&rising, &[1.0, 0.0, 1.0]).abs() < 1e-12);
    }
}
