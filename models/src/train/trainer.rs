//! The loop that all recipes share: updates, metrics, evaluation, checkpoints, exact resume, and a stop that loses nothing.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use wgtune_engine::Tensor;

use super::metrics::{Evaluation, Metrics};
use super::run::RunDirectory;
use super::schedule::LearningRate;
use super::tuned::Tuned;
use super::update::{Progress, step};
use crate::error::{Error, Result};
use crate::transformer::{Decoder, Forward};

/// What is learnt: batches, and what is wrong with a model's answer to them.
pub trait Recipe {
    /// Rows that go through the model together.
    type Batch;

    /// The batch of this index, counted from 0 over the whole run: the same whenever it is asked for.
    fn batch(&self, index: usize) -> Self::Batch;

    /// How many passes over the data so many batches are.
    fn epochs(&self, batches: usize) -> f64;

    /// Tokens of a batch, padding not counted.
    fn tokens(&self, batch: &Self::Batch) -> usize;

    /// How many terms the batch's loss is the sum of.
    fn targets(&self, batch: &Self::Batch) -> usize;

    /// The loss of a batch, which `forward` takes through the model.
    fn loss(&self, decoder: &Decoder, batch: &Self::Batch, forward: &Forward) -> Loss;

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

/// How a run goes, whatever its recipe, its data and its model.
#[derive(Clone, Debug)]
pub struct Plan {
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

/// What a run tells as it goes.
pub enum Event<'a> {
    /// An update was made.
    Step(&'a Metrics),
    /// So many batches of an evaluation are done.
    Validating {
        /// These.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// An evaluation was made.
    Evaluated {
        /// When.
        moment: Moment,
        /// What it came to.
        evaluation: &'a Evaluation,
    },
}

/// When a model is evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Before the first update.
    Before,
    /// After the last one.
    After,
}

/// Hears what happens. Where it breaks, the run stops as soon as nothing is lost by that.
pub type Listener<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

/// What a run came to.
pub struct Outcome {
    /// Of the model that it began with; `None` also where it went on from a checkpoint.
    pub before: Option<Evaluation>,
    /// Of the model as it is now.
    pub after: Option<Evaluation>,
}

/// A run: a model on its way through a plan.
pub struct Trainer<'a, R> {
    model: &'a Tuned,
    recipe: &'a R,
    plan: &'a Plan,
    run: &'a RunDirectory,
    progress: Progress,
    saved: Instant,
}

impl<'a, R: Recipe> Trainer<'a, R> {
    /// Before the first update.
    pub fn new(model: &'a Tuned, recipe: &'a R, plan: &'a Plan, run: &'a RunDirectory) -> Trainer<'a, R> {
        Trainer { model, recipe, plan, run, progress: Progress::new(model, plan), saved: Instant::now() }
    }

    /// Goes on from the checkpoint in the run's folder, and cuts the metrics back to it; `false` where there is none yet.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, or is of other parameters or of a later step than the plan's last.
    pub fn resume(&mut self) -> Result<bool> {
        let found = self.run.resume(self.model, &mut self.progress)?;
        let (at, steps) = (self.progress.step, self.plan.steps);
        if at > steps {
            let place = self.run.path().display();
            let message = format!("the checkpoint in {place} is of step {at}: expected one of at most {steps}");
            return Err(Error::Data { message });
        }
        self.run.cut_metrics(at)?;
        Ok(found)
    }

    /// Updates done.
    pub fn step(&self) -> usize {
        self.progress.step
    }

    /// Trains to the plan's last step. Writes `metrics.jsonl` and, as often as the plan says and at the end, a checkpoint.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where `listen` broke before the end: whatever was done is in the checkpoint. A parameter that no
    /// gradient reaches, a loss that is not finite (naming the first op whose output was not), a full disk, a device that
    /// failed: the last checkpoint stays.
    pub fn train(&mut self, listen: &mut Listener) -> Result<Outcome> {
        let before = if self.progress.step == 0 { self.evaluate(Moment::Before, listen)? } else { None };
        while !self.is_done() {
            self.advance(listen)?;
        }
        Ok(Outcome { before, after: self.evaluate(Moment::After, listen)? })
    }

    fn is_done(&self) -> bool {
        self.progress.step >= self.plan.steps
    }

    /// One update, and what belongs to it.
    fn advance(&mut self, listen: &mut Listener) -> Result<()> {
        let (plan, recipe, first) = (self.plan, self.recipe, self.progress.step * self.plan.accumulate);
        let window: Vec<R::Batch> = (first..first + plan.accumulate).map(|index| recipe.batch(index)).collect();
        let metrics = step(self.model, recipe, &window, plan, &mut self.progress)?;
        self.run.append(&metrics)?;
        let stop = listen(Event::Step(&metrics)).is_break();
        let by_steps = plan.save_every > 0 && metrics.step.is_multiple_of(plan.save_every);
        let by_time = !plan.save_after.is_zero() && self.saved.elapsed() >= plan.save_after;
        if self.is_done() || stop || by_steps || by_time {
            self.run.save(self.model, &self.progress)?;
            self.saved = Instant::now();
        }
        if stop && !self.is_done() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn evaluate(&self, moment: Moment, listen: &mut Listener) -> Result<Option<Evaluation>> {
        let evaluation = self.recipe.validate(self.model, &mut |done, of| listen(Event::Validating { done, of }))?;
        if let Some(evaluation) = &evaluation {
            // Whoever breaks now is heard at the next update.
            let _ = listen(Event::Evaluated { moment, evaluation });
        }
        Ok(evaluation)
    }
}
