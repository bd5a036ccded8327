//! One update: the gradients of a window of batches, clipped, into AdamW; of one run, or of several that share a pass.

use std::time::Instant;

use wgtune_engine::optim::{AdamW, AdamWConfig, Parameter, Parameters};
use wgtune_engine::random::Philox;
use wgtune_engine::{Gradients, Tensor, ops, process};

use super::metrics::{Best, Figures, Metrics};
use super::pass::{self, Lesson, Part};
use super::recipe::Recipe;
use super::trainer::Plan;
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
        Progress::beside(model, Vec::new(), plan)
    }

    /// The same where these are trained beside the model: their names, and what their learning rates are multiplied by.
    pub fn beside(model: &Tuned, others: Vec<(String, &Tensor, f64)>, plan: &Plan) -> Progress {
        // Matrices are decayed, norms and biases are not (they have one axis).
        let decay = |tensor: &Tensor| if tensor.rank() > 1 { plan.weight_decay } else { 0.0 };
        let parameter = |(name, tensor, rate): (String, &Tensor, f64)| Parameter {
            name,
            tensor: tensor.clone(),
            weight_decay: decay(tensor),
            rate,
        };
        let own = model.parameters().into_iter().map(|(name, tensor)| (name, tensor, 1.0));
        let parameters = Parameters::gather(own.chain(others).map(parameter));
        let optimiser = AdamW::new(AdamWConfig::default(), &parameters);
        Progress { step: 0, num_tokens: 0, parameters, optimiser, best: None, waited: 0 }
    }

    /// A hash of each parameter that is trained.
    pub(super) fn fingerprints(&self) -> Result<Vec<String>> {
        let hash = |parameter: &Parameter| Ok(xxh3([parameter.tensor.detach().to_bytes()?]));
        self.parameters.all().iter().map(hash).collect()
    }

    /// The names of those whose hash is still the same.
    pub(super) fn unmoved(&self, before: &[String]) -> Result<Vec<&str>> {
        let now = self.fingerprints()?;
        let all = self.parameters.all().iter().zip(before.iter().zip(&now));
        Ok(all.filter(|(_, (before, now))| before == now).map(|(parameter, _)| parameter.name.as_str()).collect())
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

/// A run's part of an update.
pub struct Turn<'a, R: Recipe> {
    model: &'a Tuned,
    recipe: &'a R,
    plan: &'a Plan,
    progress: &'a mut Progress,
    window: Vec<R::Batch>,
}

/// The sums of a window.
struct Sums {
    /// The loss as a mean already, then a sum for each figure.
    values: Tensor,
    names: Vec<&'static str>,
}

/// One update of each run, by the gradients of its window's mean loss. Their models are one, whose own weights none of them trains
/// if there are several: what they add to it is tuned by one pass over the batches of all.
///
/// # Errors
/// A device that failed. Of a run, whose model is then as it was: a parameter that no gradient reaches, a loss that is not finite
/// (naming the first op whose output was not).
pub fn step<R: Recipe>(turns: &mut [Turn<R>]) -> Result<Vec<Result<Metrics>>> {
    let device = turns[0].model.decoder.device().clone();
    device.reset_peak();
    let begun = Instant::now();
    let (gradients, sums) = accumulate(turns)?;
    let norms: Vec<Result<Tensor>> = turns.iter_mut().map(|turn| turn.update(&gradients)).collect();
    drop(gradients);
    let read = |(sums, norm): (&Sums, Result<Tensor>)| Ok(ops::cat(&[&sums.values, &norm?.reshape([1])], 0).to_vec()?);
    let read: Vec<Result<Vec<f32>>> = sums.iter().zip(norms).map(read).collect();
    let (seconds, peak) = (begun.elapsed().as_secs_f64(), device.memory().peak);
    let is_alone = turns.len() == 1;
    let end = |((turn, sums), read): ((&mut Turn<R>, Sums), Result<Vec<f32>>)| match read? {
        // It may be another's: what brings gradients into f16's range goes by those of the whole pass.
        read if !is_alone && !is_finite(&read) => step(std::slice::from_mut(turn))?.remove(0),
        read => turn.finish(&sums.names, &read, seconds, peak),
    };
    Ok(turns.iter_mut().zip(sums).zip(read).map(end).collect())
}

/// Whether the loss and the gradients' norm are, which stand at the ends.
fn is_finite(read: &[f32]) -> bool {
    [read.first(), read.last()].into_iter().flatten().all(|value| value.is_finite())
}

/// The gradients of the mean loss of every turn's whole window, and each window's sums.
fn accumulate<R: Recipe>(turns: &[Turn<R>]) -> Result<(Gradients, Vec<Sums>)> {
    let decoder = &turns[0].model.decoder;
    let checkpoint_blocks = turns.iter().any(|turn| turn.plan.checkpoint_blocks);
    let shares: Vec<f32> = turns.iter().map(|turn| 1.0 / turn.targets() as f32).collect();
    let mut gradients = Gradients::default();
    let mut sums: Vec<Option<Sums>> = turns.iter().map(|_| None).collect();
    let most = turns.iter().map(|turn| turn.window.len()).max().unwrap_or(0);
    for i in 0..most {
        let active: Vec<usize> = (0..turns.len()).filter(|&turn| i < turns[turn].window.len()).collect();
        let parts: Vec<Part> = active.iter().map(|&turn| turns[turn].part(i)).collect();
        let mut total: Option<Tensor> = None;
        for (turn, hidden) in active.into_iter().zip(pass::hidden(decoder, &parts, checkpoint_blocks)) {
            let Turn { recipe, window, .. } = &turns[turn];
            let output = recipe.loss(decoder, &window[i], &hidden);
            let loss = ops::scale(&output.sum, shares[turn]);
            let (names, beside): (Vec<&str>, Vec<Tensor>) = output.figures.into_iter().unzip();
            let own: Vec<Tensor> = [&loss].into_iter().chain(&beside).map(|part| part.detach().reshape([1])).collect();
            let own = ops::cat(&own.iter().collect::<Vec<_>>(), 0);
            let values = sums[turn].take().map_or(own.clone(), |sums| ops::add(&sums.values, &own));
            sums[turn] = Some(Sums { values, names });
            total = Some(total.map_or(loss.clone(), |total| ops::add(&total, &loss)));
        }
        gradients.accumulate(total.expect("a window has batches").backward());
        decoder.device().flush()?;
    }
    Ok((gradients, sums.into_iter().map(|sums| sums.expect("a window has batches")).collect()))
}

impl<'a, R: Recipe> Turn<'a, R> {
    /// The next update of a run that stands there.
    pub fn new(model: &'a Tuned, recipe: &'a R, plan: &'a Plan, progress: &'a mut Progress) -> Turn<'a, R> {
        let first = progress.step * plan.accumulate;
        let window = (first..first + plan.accumulate).map(|index| recipe.batch(index)).collect();
        Turn { model, recipe, plan, progress, window }
    }

    /// What goes through the model of a batch of its window.
    fn part(&self, batch: usize) -> Part<'_> {
        let random = Philox::new(self.plan.seed).stream(self.progress.step as u64).stream(batch as u64);
        (self.window[batch].rows(), self.model.method.tuning(self.recipe.has_dropout().then_some(random)))
    }

    /// What the window's loss is the mean of; 1 where that is nothing, so that the mean is 0.
    fn targets(&self) -> f64 {
        self.window.iter().map(Lesson::targets).sum::<usize>().max(1) as f64
    }

    fn learning_rate(&self) -> f64 {
        self.plan.learning_rate.at(self.progress.step)
    }

    /// One AdamW update; the norm of the gradients before clipping. A norm that is not finite leaves everything as it was.
    fn update(&mut self, gradients: &Gradients) -> Result<Tensor> {
        let (clip, learning_rate) = (self.plan.clip, self.learning_rate());
        let Progress { parameters, optimiser, .. } = &mut *self.progress;
        let gradients = parameters.gradients(gradients).map_err(|parameter| Error::NoGradient { parameter })?;
        let norm = gradients.norm();
        let limit = if clip > 0.0 { clip as f32 } else { f32::MAX };
        let scale = ops::clip_scale(&norm, limit);
        optimiser.step(parameters, &gradients, learning_rate, Some(&scale));
        Ok(norm)
    }

    /// What the update came to: `read` is the loss, the figures' sums, and the gradients' norm.
    fn finish(&mut self, names: &[&'static str], read: &[f32], seconds: f64, peak_tensor_bytes: u64) -> Result<Metrics> {
        let (loss, grad_norm) = (f64::from(read[0]), f64::from(read[read.len() - 1]));
        if !is_finite(read) {
            return Err(self.not_finite(loss, grad_norm)?);
        }
        let (targets, learning_rate) = (self.targets(), self.learning_rate());
        let figures: Figures =
            names.iter().zip(&read[1..]).map(|(name, sum)| ((*name).into(), f64::from(*sum) / targets)).collect();
        let tokens: usize = self.window.iter().map(Lesson::tokens).sum();
        self.progress.step += 1;
        self.progress.num_tokens += tokens as u64;
        let Progress { step, num_tokens, .. } = *self.progress;
        Ok(Metrics {
            step,
            loss,
            grad_norm,
            learning_rate,
            figures,
            alarms: Vec::new(),
            validation_loss: None,
            num_tokens,
            epoch: (step * self.plan.accumulate) as f64 / self.recipe.batches_per_epoch() as f64,
            tokens_per_second: tokens as f64 / seconds,
            peak_tensor_bytes,
            peak_process_bytes: process::memory().map(|memory| memory.peak),
        })
    }

    /// The error for an update whose loss or gradients are not finite: it is run again with every result looked at. The
    /// parameters are still those from before it.
    fn not_finite(&self, loss: f64, norm: f64) -> Result<Error> {
        let first = self.model.decoder.device().first_non_finite(|| match accumulate(std::slice::from_ref(self)) {
            Ok(_) => Ok(()),
            Err(Error::Device(error)) => Err(error),
            Err(_) => Ok(()),
        })?;
        let (what, value) = if loss.is_finite() { ("gradient norm", norm) } else { ("loss", loss) };
        Ok(Error::NotFinite { place: format!("step {}", self.progress.step + 1), what, value, first })
    }
}
