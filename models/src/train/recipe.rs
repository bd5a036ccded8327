//! What a run learns: what a recipe gives to the loop that all share.

use std::ops::ControlFlow;

use serde_json::Value;
use wgtune_engine::Tensor;

use super::metrics::{Evaluation, Figures, Metrics};
use super::pass::Lesson;
use super::run::RunDirectory;
use crate::data::mixture::Share;
use crate::error::Result;
use crate::peft::Tuned;
use crate::transformer::Decoder;

/// What is learnt: batches, and what is wrong with a model's answer to them.
pub trait Recipe {
    /// Rows that go through the model together.
    type Batch: Lesson;

    /// The batch of this index, counted from 0 over the whole run: the same whenever it is asked for.
    fn batch(&self, index: usize) -> Self::Batch;

    /// How many batches are a pass over the data.
    fn batches_per_epoch(&self) -> usize;

    /// The loss of a batch, whose rows came through the model as `hidden` [B, T, H].
    fn loss(&self, decoder: &Decoder, batch: &Self::Batch, hidden: &Tensor) -> Loss;

    /// What comes before all else, with the model as the run begins: at its first step, or where it goes on.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where `on_batch` breaks; whatever the recipe meets.
    fn begin(&mut self, _model: &Tuned, _step: usize, _run: &RunDirectory, _on_batch: &mut OnBatch) -> Result<()> {
        Ok(())
    }

    /// What comes before an update, the first of which is number 0: a policy's own answers are made here.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where `on_batch` breaks; whatever the recipe meets.
    fn prepare(&mut self, _model: &Tuned, _step: usize, _on_batch: &mut OnBatch) -> Result<()> {
        Ok(())
    }

    /// What is trained beside the model, by name, and what its learning rate is multiplied by.
    fn parameters(&self) -> Vec<(String, &Tensor, f64)> {
        Vec::new()
    }

    /// Whether a pass drops what the method says.
    fn has_dropout(&self) -> bool {
        true
    }

    /// Hears what an update came to.
    fn heed(&mut self, _metrics: &Metrics) {}

    /// What is told of the update of this number, beside what its batches come to.
    fn told(&self, _step: usize) -> Figures {
        Figures::new()
    }

    /// What a checkpoint keeps of it: all that the batches to come depend on, and no option says.
    fn state(&self) -> Option<Value> {
        None
    }

    /// Goes on from such a state.
    ///
    /// # Errors
    /// A sentence, where it is no state of this recipe.
    fn restore(&mut self, _state: Value) -> std::result::Result<(), String> {
        Ok(())
    }

    /// What the first so many batches hold of each of the sources that they are drawn from in shares; nothing where none are.
    fn shares(&self, _batches: usize) -> Vec<Share> {
        Vec::new()
    }

    /// How well the model does on what was held out; `None` where nothing was. `on_batch` hears how many batches of how many
    /// are done, and may break.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where `on_batch` breaks; a loss that is not finite, or a device that failed.
    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>>;
}

/// Hears how many batches of how many are evaluated.
pub type OnBatch<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// What a batch came to: sums over its targets.
pub struct Loss {
    /// What is made less.
    pub sum: Tensor,
    /// What is told beside it, by name.
    pub figures: Vec<(&'static str, Tensor)>,
}
