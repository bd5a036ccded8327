//! Scores that a reward model gives to texts.

use crate::data::batch::Batch;
use crate::data::encode::Example;
use crate::error::{Error, Result};
use crate::peft::Tuned;
use crate::train::answers::last;
use crate::train::pass::{self, Lesson};
use crate::train::recipe::OnBatch;

/// The score of each text, at its last token; so many texts at once, those of like length together. A text's tokens are all that it
/// is to be read with, virtual ones included.
///
/// # Errors
/// [`Error::Interrupted`] where `on_batch` breaks; a text without a token, a score that is not finite, or a device that failed.
pub fn scores(model: &Tuned, texts: &[&[u32]], batch_size: usize, on_batch: &mut OnBatch) -> Result<Vec<f32>> {
    let model = model.detach();
    if texts.iter().any(|text| text.is_empty()) {
        return Err(Error::Data { message: "a text without a token: nothing to score".into() });
    }
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| texts[text].len());
    let batches = order.chunks(batch_size.max(1));
    let (count, mut scores) = (batches.len(), vec![0.0; texts.len()]);
    for (index, places) in batches.enumerate() {
        let example = |&place: &usize| Example { ids: texts[place].to_vec(), labels: texts[place].to_vec() };
        let examples: Vec<Example> = places.iter().map(example).collect();
        let batch = Batch::of_rows(&examples.iter().map(|example| vec![example]).collect::<Vec<_>>(), 0);
        let hidden = pass::hidden(&model.decoder, &[(batch.rows(), model.method.tuning(None))], false).remove(0);
        let found = model.decoder.logits(&last(&batch, &hidden)).to_vec()?;
        if let Some(score) = found.iter().find(|score| !score.is_finite()) {
            let message = format!("a score is {score}; expected a finite number: look at the weights of model and adapter");
            return Err(Error::Data { message });
        }
        places.iter().zip(found).for_each(|(&place, score)| scores[place] = score);
        if on_batch(index + 1, count).is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(scores)
}
