//! Supervised fine-tuning: next-token cross-entropy on the tokens that carry a loss.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wgtune_engine::optim::{AdamW, AdamWConfig};
use wgtune_engine::random::Philox;
use wgtune_engine::{Device, Gradients, Tensor, ops, process};

use super::run::RunDirectory;
use super::schedule::LearningRate;
use super::tuned::Tuned;
use crate::data::batch::{Batch, Loader};
use crate::error::{Error, Result};
use crate::transformer::{Decoder, Forward, Input};

/// What a run does, apart from its data and its model.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Optimiser updates.
    pub steps: usize,
    /// Batches behind one update.
    pub accumulate: usize,
    /// The learning rate of every update.
    pub learning_rate: LearningRate,
    /// AdamW's decay of matrices; biases and norms are not decayed.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm; 0 turns it off.
    pub clip: f64,
    /// Recompute each block in the backward pass.
    pub checkpoint_blocks: bool,
    /// What dropout is drawn from.
    pub seed: u64,
    /// A checkpoint every so many updates; 0 is none before the end.
    pub save_every: usize,
    /// A checkpoint whenever so much time has passed since the last; 0 is never.
    pub save_after: Duration,
}

/// One line of `metrics.jsonl`: what update `step` saw before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// From 1.
    pub step: usize,
    /// Mean cross-entropy in nats of the tokens that carry a loss, before the update.
    pub loss: f64,
    /// Of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Of this update.
    pub learning_rate: f64,
    /// Mean entropy in nats of the predictions of those tokens.
    pub entropy: f64,
    /// Share of those tokens that were the most likely.
    pub mean_token_accuracy: f64,
    /// Tokens seen in the run so far, padding not counted.
    pub num_tokens: u64,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Tokens a second of this step.
    pub tokens_per_second: f64,
    /// The most bytes of device memory in use in this step.
    pub peak_tensor_bytes: u64,
    /// The most bytes of memory that the process has held since it began, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_process_bytes: Option<u64>,
}

/// Where a run stands: what a checkpoint holds.
pub struct Progress {
    /// Updates done.
    pub step: usize,
    /// See [`Metrics::num_tokens`].
    pub num_tokens: u64,
    /// The optimiser's moments.
    pub optimiser: AdamW,
}

impl Progress {
    /// Before the first update.
    pub fn new(model: &Tuned, recipe: &Recipe) -> Progress {
        let parameters = model.parameters();
        // Matrices are decayed, norms and biases are not (they have one axis).
        let decay = |tensor: &Tensor| if tensor.rank() > 1 { recipe.weight_decay } else { 0.0 };
        let tensors: Vec<(&Tensor, f64)> = parameters.iter().map(|(_, tensor)| (*tensor, decay(tensor))).collect();
        Progress { step: 0, num_tokens: 0, optimiser: AdamW::new(AdamWConfig::default(), &tensors) }
    }
}

/// Trains from where `progress` stands to the recipe's last step, or until `on_step` breaks. Writes `metrics.jsonl` and, as often
/// as the recipe says and at the end, a checkpoint.
///
/// # Errors
/// A parameter that no gradient reaches, a loss that is not finite (naming the first op whose output was not), a full disk, a
/// device that failed. The last checkpoint stays.
pub fn train(
    model: &Tuned,
    loader: &Loader,
    recipe: &Recipe,
    progress: &mut Progress,
    run: &RunDirectory,
    on_step: &mut dyn FnMut(&Metrics) -> ControlFlow<()>,
) -> Result<()> {
    let mut saved = Instant::now();
    let epochs = |step: usize| (step * recipe.accumulate) as f64 / loader.batches_per_epoch() as f64;
    while progress.step < recipe.steps {
        let window: Vec<Batch> = (0..recipe.accumulate).map(|i| loader.batch(progress.step * recipe.accumulate + i)).collect();
        let metrics = step(model, &window, recipe, progress)?;
        let metrics = Metrics { epoch: epochs(progress.step), ..metrics };
        run.append(&metrics)?;
        let last = progress.step == recipe.steps;
        let stop = on_step(&metrics).is_break();
        let by_steps = recipe.save_every > 0 && progress.step.is_multiple_of(recipe.save_every);
        let by_time = !recipe.save_after.is_zero() && saved.elapsed() >= recipe.save_after;
        if last || stop || by_steps || by_time {
            run.save(model, progress)?;
            saved = Instant::now();
        }
        if stop {
            break;
        }
    }
    Ok(())
}

/// One update by the gradients of the window's mean loss. Which epoch that is, only the loader knows: it is left 0.
///
/// # Errors
/// As [`train`]; after one the model is as it was.
pub fn step(model: &Tuned, window: &[Batch], recipe: &Recipe, progress: &mut Progress) -> Result<Metrics> {
    let device = model.decoder.device();
    device.reset_peak();
    let begun = Instant::now();
    let (gradients, sums) = accumulate(model, window, recipe, progress.step)?;
    let learning_rate = recipe.learning_rate.at(progress.step);
    let norm = update(model, &gradients, recipe, progress, learning_rate)?;
    drop(gradients);

    let read = ops::cat(&[&sums, &norm.reshape([1])], 0).to_vec()?;
    let [loss, entropy, correct, grad_norm] = [read[0], read[1], read[2], read[3]].map(f64::from);
    if !loss.is_finite() || !grad_norm.is_finite() {
        return Err(not_finite(model, window, recipe, progress.step, loss, grad_norm)?);
    }
    let (targets, tokens) = (count_targets(window), window.iter().map(Batch::tokens).sum::<usize>());
    progress.step += 1;
    progress.num_tokens += tokens as u64;
    Ok(Metrics {
        step: progress.step,
        loss,
        grad_norm,
        learning_rate,
        entropy: entropy / targets,
        mean_token_accuracy: correct / targets,
        num_tokens: progress.num_tokens,
        epoch: 0.0,
        tokens_per_second: tokens as f64 / begun.elapsed().as_secs_f64(),
        peak_tensor_bytes: device.memory().peak,
        peak_process_bytes: process::memory().map(|memory| memory.peak),
    })
}

/// The gradients of the whole window's mean loss, and [loss, sum of entropies, number of hits].
fn accumulate(model: &Tuned, window: &[Batch], recipe: &Recipe, step: usize) -> Result<(Gradients, Tensor)> {
    let device = model.decoder.device();
    let random = Philox::new(recipe.seed).stream(step as u64);
    let share = 1.0 / count_targets(window) as f32;
    let mut gradients = Gradients::default();
    let mut sums: Option<Tensor> = None;
    for (i, batch) in window.iter().enumerate() {
        let forward = model.training(random.stream(i as u64), recipe.checkpoint_blocks);
        let output = cross_entropy(&model.decoder, batch, &forward);
        let loss = ops::scale(&output.loss, share);
        let parts = [&loss, &output.entropy, &output.correct].map(|part| part.detach().reshape([1]));
        let part = ops::cat(&[&parts[0], &parts[1], &parts[2]], 0);
        sums = Some(sums.map_or(part.clone(), |sums| ops::add(&sums, &part)));
        gradients.accumulate(loss.backward());
        device.flush()?;
    }
    Ok((gradients, sums.expect("a window has batches")))
}

/// One AdamW update; the norm of the gradients before clipping. A norm that is not finite leaves everything as it was.
fn update(model: &Tuned, gradients: &Gradients, recipe: &Recipe, progress: &mut Progress, learning_rate: f64) -> Result<Tensor> {
    let parameters = model.parameters();
    let gradient = |(name, parameter): &(String, &Tensor)| {
        gradients.get(parameter).ok_or_else(|| Error::NoGradient { parameter: name.clone() })
    };
    let gradients: Vec<&Tensor> = parameters.iter().map(gradient).collect::<Result<_>>()?;
    let norm = ops::gradient_norm(&gradients);
    let limit = if recipe.clip > 0.0 { recipe.clip as f32 } else { f32::MAX };
    let scale = ops::clip_scale(&norm, limit);
    let tensors: Vec<&Tensor> = parameters.iter().map(|(_, tensor)| *tensor).collect();
    progress.optimiser.step(&tensors, &gradients, learning_rate, Some(&scale));
    Ok(norm)
}

/// The error for a step whose loss or gradients are not finite: the step is run again with every result looked at. The
/// parameters are still those from before it.
fn not_finite(model: &Tuned, window: &[Batch], recipe: &Recipe, step: usize, loss: f64, norm: f64) -> Result<Error> {
    let found = model.decoder.device().first_non_finite(|| match accumulate(model, window, recipe, step) {
        Ok(_) => Ok(()),
        Err(Error::Device(error)) => Err(error),
        Err(_) => Ok(()),
    })?;
    let (what, value) = if loss.is_finite() { ("gradient norm", norm) } else { ("loss", loss) };
    Ok(Error::NotFinite { place: format!("step {}", step + 1), what, value, first: found })
}

/// How well a model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// e^loss.
    pub perplexity: f64,
    /// Share of tokens that were the most likely.
    pub mean_token_accuracy: f64,
    /// Tokens that carry a loss.
    pub trained_tokens: usize,
}

/// The loss over batches, each token counted once. `on_batch` hears after each, and may break.
///
/// # Errors
/// [`Error::Interrupted`] where `on_batch` breaks; no token that carries a loss, a loss that is not finite (naming the first op whose output was not), or a device that failed.
pub fn evaluate(
    model: &Tuned,
    batches: impl Iterator<Item = Batch>,
    on_batch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Evaluation> {
    let (decoder, forward) = model.evaluation();
    let (mut loss, mut correct, mut trained_tokens) = (0.0, 0.0, 0);
    for (index, batch) in batches.enumerate() {
        let output = cross_entropy(&decoder, &batch, &forward);
        let value = f64::from(output.loss.item()?);
        if !value.is_finite() {
            let again = || cross_entropy(&decoder, &batch, &forward).loss.item().map(drop);
            let first = decoder.device().first_non_finite(again)?;
            return Err(Error::NotFinite { place: format!("batch {}", index + 1), what: "loss", value, first });
        }
        loss += value;
        correct += f64::from(output.correct.item()?);
        trained_tokens += batch.trained_tokens();
        if on_batch().is_break() {
            return Err(Error::Interrupted);
        }
    }
    if trained_tokens == 0 {
        return Err(Error::Data { message: "no token carries a loss: nothing to evaluate".into() });
    }
    let loss = loss / trained_tokens as f64;
    let mean_token_accuracy = correct / trained_tokens as f64;
    Ok(Evaluation { loss, perplexity: loss.exp(), mean_token_accuracy, trained_tokens })
}

fn cross_entropy(decoder: &Decoder, batch: &Batch, forward: &Forward) -> ops::CrossEntropy {
    let device = decoder.device();
    let hidden = decoder.hidden(&input(batch, device), forward);
    let rows = batch.rows * batch.length;
    let targets = device.tensor_u32(&batch.targets, [rows]);
    ops::linear_cross_entropy(&hidden.reshape([rows, hidden.last_size()]), decoder.output_weight(), &targets)
}

/// A batch on the device. Padding stands at the end, where no real token looks, so attention needs no lengths.
fn input(batch: &Batch, device: &Device) -> Input {
    let tensor = |values: &[u32]| device.tensor_u32(values, [batch.rows, batch.length]);
    let packed = batch.is_packed();
    Input {
        ids: tensor(&batch.ids),
        positions: tensor(&batch.positions),
        // Packed texts begin again at 0: what dynamic rope goes by is the longest of them.
        end: batch.positions.iter().max().map_or(0, |&last| last as usize + 1),
        lengths: None,
        segments: packed.then(|| tensor(&batch.segments)),
    }
}

/// How many tokens of a window carry a loss; 1 where none does, so that the mean is 0.
fn count_targets(window: &[Batch]) -> f64 {
    window.iter().map(Batch::trained_tokens).sum::<usize>().max(1) as f64
}
