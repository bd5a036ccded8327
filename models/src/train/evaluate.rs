//! How well a model does on what was held out.

use std::collections::BTreeMap;

use wgtune_engine::Tensor;

use super::metrics::{Evaluation, Figures};
use super::pass::{self, Lesson};
use super::recipe::{Loss, OnBatch};
use crate::error::{Error, Result};
use crate::peft::Tuned;
use crate::transformer::Decoder;

/// The mean loss over batches and the means of what is told beside it, each target counted once.
///
/// # Errors
/// [`Error::Interrupted`] where `on_batch` breaks; nothing that carries a loss, a loss that is not finite (naming the first op whose
/// output was not), or a device that failed.
pub fn evaluate<B: Lesson>(
    model: &Tuned,
    batches: impl ExactSizeIterator<Item = B>,
    loss: impl Fn(&Decoder, &B, &Tensor) -> Loss,
    on_batch: &mut OnBatch,
) -> Result<Evaluation> {
    let model = model.detach();
    let (decoder, count) = (&model.decoder, batches.len());
    let (mut sum, mut sums, mut targets, mut trained_tokens) = (0.0, BTreeMap::<&'static str, f64>::new(), 0, 0);
    for (index, batch) in batches.enumerate() {
        let pass = || {
            let hidden = pass::hidden(decoder, &[(batch.rows(), model.method.tuning(None))], false).remove(0);
            loss(decoder, &batch, &hidden)
        };
        let Loss { sum: own, figures } = pass();
        let value = f64::from(own.item()?);
        if !value.is_finite() {
            let first = decoder.device().first_non_finite(|| pass().sum.item().map(drop))?;
            return Err(Error::NotFinite { place: format!("batch {}", index + 1), what: "loss", value, first });
        }
        sum += value;
        for (name, figure) in figures {
            *sums.entry(name).or_default() += f64::from(figure.item()?);
        }
        targets += batch.targets();
        trained_tokens += batch.trained_tokens();
        if on_batch(index + 1, count).is_break() {
            return Err(Error::Interrupted);
        }
    }
    if targets == 0 {
        return Err(Error::Data { message: "no token carries a loss: nothing to evaluate".into() });
    }
    let mean = |sum: f64| sum / targets as f64;
    let figures: Figures = sums.into_iter().map(|(name, sum)| (name.into(), mean(sum))).collect();
    Ok(Evaluation { loss: mean(sum), figures, trained_tokens, samples: Vec::new() })
}
