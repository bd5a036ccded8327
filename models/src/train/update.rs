//! One update: the gradients of a window of batches, clipped, into AdamW.

use std::time::Instant;

use wgtune_engine::optim::{AdamW, AdamWConfig, Parameter, Parameters};
use wgtune_engine::random::Philox;
use wgtune_engine::{Gradients, Tensor, ops, process};

use super::metrics::{Best, Figures, Metrics};
use super::trainer::{Plan, Recipe};
use crate::error::{Error, Result};
use crate::hash::xxh3;
use crate::peft::Tuned;

/// Where a run stands: what a checkpoint holds.
pub struct Progress {
    /// Updates done.
    pub step: usize,
    /// See [`Metrics::num_tokens`].
    pub num_tokens: u64,
    /// What is trained. Its tensors are the model's own.
    pub parameters: Parameters,
    /// The optimiser's moments.
    pub optimiser: AdamW,
    /// The best evaluation on the way.
    pub best: Option<Best>,
    /// How many in a row have brought nothing better since.
    pub waited: usize,
}

impl Progress {
    /// Before the first update. The model's trained parameters move into the buffers that updates are made in.
    pub fn new(model: &Tuned, plan: &Plan) -> Progress {
        // Matrices are decayed, norms and biases are not (they have one axis).
        let decay = |tensor: &Tensor| if tensor.rank() > 1 { plan.weight_decay } else { 0.0 };
        let parameter =
            |(name, tensor): (String, &Tensor)| Parameter { name, tensor: tensor.clone(), weight_decay: decay(tensor) };
        let parameters = Parameters::gather(model.parameters().into_iter().map(parameter));
        let optimiser = AdamW::new(AdamWConfig::default(), &parameters);
        Progress { step: 0, num_tokens: 0, parameters, optimiser, best: None, waited: 0 }
    }
}

impl Progress {
    /// A hash of what is trained.
    pub(super) fn fingerprint(&self) -> Result<String> {
        let mut failed = None;
        let mut bytes = |parameter: &Parameter| parameter.tensor.detach().to_bytes().map_err(|error| failed = Some(error)).ok();
        let hash = xxh3(self.parameters.all().iter().map_while(&mut bytes));
        failed.map_or(Ok(hash), |error| Err(error.into()))
    }

    /// Takes the loss of an evaluation on the way; whether it is the best so far.
    pub(super) fn judge(&mut self, loss: f64) -> bool {
        let better = self.best.is_none_or(|best| loss < best.loss);
        if better {
            self.best = Some(Best { step: self.step, loss });
        }
        self.waited = if better { 0 } else { self.waited + 1 };
        better
    }
}

/// The sums of a window.
struct Sums {
    /// The loss as a mean already, then a sum for each figure.
    values: Tensor,
    names: Vec<&'static str>,
}

/// One update by the gradients of the window's mean loss.
///
/// # Errors
/// A parameter that no gradient reaches, a loss that is not finite (naming the first op whose output was not), a device that
/// failed; after one the model is as it was.
pub fn step<R: Recipe>(model: &Tuned, recipe: &R, window: &[R::Batch], plan: &Plan, progress: &mut Progress) -> Result<Metrics> {
    let device = model.decoder.device();
    device.reset_peak();
    let begun = Instant::now();
    let (gradients, sums) = accumulate(model, recipe, window, plan, progress.step)?;
    let learning_rate = plan.learning_rate.at(progress.step);
    let norm = update(&gradients, plan, progress, learning_rate)?;
    drop(gradients);

    let read = ops::cat(&[&sums.values, &norm.reshape([1])], 0).to_vec()?;
    let (loss, grad_norm) = (f64::from(read[0]), f64::from(read[read.len() - 1]));
    if !loss.is_finite() || !grad_norm.is_finite() {
        return Err(not_finite(model, recipe, window, plan, progress.step, loss, grad_norm)?);
    }
    let targets = count_targets(recipe, window);
    let figures: Figures = sums.names.iter().zip(&read[1..]).map(|(name, sum)| (*name, f64::from(*sum) / targets)).collect();
    let tokens: usize = window.iter().map(|batch| recipe.tokens(batch)).sum();
    progress.step += 1;
    progress.num_tokens += tokens as u64;
    Ok(Metrics {
        step: progress.step,
        loss,
        grad_norm,
        learning_rate,
        figures,
        validation_loss: None,
        num_tokens: progress.num_tokens,
        epoch: (progress.step * plan.accumulate) as f64 / recipe.batches_per_epoch() as f64,
        tokens_per_second: tokens as f64 / begun.elapsed().as_secs_f64(),
        peak_tensor_bytes: device.memory().peak,
        peak_process_bytes: process::memory().map(|memory| memory.peak),
    })
}

/// The gradients of the whole window's mean loss, and its sums.
fn accumulate<R: Recipe>(model: &Tuned, recipe: &R, window: &[R::Batch], plan: &Plan, step: usize) -> Result<(Gradients, Sums)> {
    let device = model.decoder.device();
    let random = Philox::new(plan.seed).stream(step as u64);
    let share = 1.0 / count_targets(recipe, window) as f32;
    let mut gradients = Gradients::default();
    let mut sums: Option<Sums> = None;
    for (i, batch) in window.iter().enumerate() {
        let forward = model.training(random.stream(i as u64), plan.checkpoint_blocks);
        let output = recipe.loss(&model.decoder, batch, &forward);
        let loss = ops::scale(&output.sum, share);
        let (names, beside): (Vec<&str>, Vec<Tensor>) = output.figures.into_iter().unzip();
        let parts: Vec<Tensor> = [&loss].into_iter().chain(&beside).map(|part| part.detach().reshape([1])).collect();
        let part = ops::cat(&parts.iter().collect::<Vec<_>>(), 0);
        let values = sums.map_or(part.clone(), |sums| ops::add(&sums.values, &part));
        sums = Some(Sums { values, names });
        gradients.accumulate(loss.backward());
        device.flush()?;
    }
    Ok((gradients, sums.expect("a window has batches")))
}

/// One AdamW update; the norm of the gradients before clipping. A norm that is not finite leaves everything as it was.
fn update(gradients: &Gradients, plan: &Plan, progress: &mut Progress, learning_rate: f64) -> Result<Tensor> {
    let Progress { parameters, optimiser, .. } = progress;
    let gradients = parameters.gradients(gradients).map_err(|parameter| Error::NoGradient { parameter })?;
    let norm = gradients.norm();
    let limit = if plan.clip > 0.0 { plan.clip as f32 } else { f32::MAX };
    let scale = ops::clip_scale(&norm, limit);
    optimiser.step(parameters, &gradients, learning_rate, Some(&scale));
    Ok(norm)
}

/// The error for a step whose loss or gradients are not finite: the step is run again with every result looked at. The
/// parameters are still those from before it.
fn not_finite<R: Recipe>(
    model: &Tuned,
    recipe: &R,
    window: &[R::Batch],
    plan: &Plan,
    step: usize,
    loss: f64,
    norm: f64,
) -> Result<Error> {
    let found = model.decoder.device().first_non_finite(|| match accumulate(model, recipe, window, plan, step) {
        Ok(_) => Ok(()),
        Err(Error::Device(error)) => Err(error),
        Err(_) => Ok(()),
    })?;
    let (what, value) = if loss.is_finite() { ("gradient norm", norm) } else { ("loss", loss) };
    Ok(Error::NotFinite { place: format!("step {}", step + 1), what, value, first: found })
}

/// What a window's loss is the mean of; 1 where that is nothing, so that the mean is 0.
fn count_targets<R: Recipe>(recipe: &R, window: &[R::Batch]) -> f64 {
    window.iter().map(|batch| recipe.targets(batch)).sum::<usize>().max(1) as f64
}
