//! The loop that all recipes share: updates, metrics, evaluation, checkpoints, exact resume, and a stop that loses nothing.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::alarms::{self, Alarms};
use super::event::{Event, Listener, ListenerOfAll, Moment};
use super::metrics::{Best, Evaluation, Metrics};
use super::recipe::Recipe;
use super::run::{EVALUATIONS, METRICS, RunDirectory, SAMPLES};
use super::samples::{Sample, Samples};
use super::schedule::LearningRate;
use super::tensorboard::Events;
use super::update::{Progress, Turn, step};
use crate::error::{Error, Result};
use crate::peft::Tuned;
use crate::wording::counted;

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
    /// An evaluation every so many updates; 0 is none on the way.
    pub eval_every: usize,
    /// Stop once so many evaluations in a row brought nothing better; 0 is never.
    pub patience: usize,
    /// Come to the last parameters, also where earlier ones were better.
    pub keep_last: bool,
    /// A checkpoint every so many updates; 0 is none before the end.
    pub save_every: usize,
    /// A checkpoint whenever so much time has passed since the last; 0 is never.
    pub save_after: Duration,
}

/// What a run came to.
pub struct Outcome {
    /// Of the model that it began with.
    pub before: Option<Evaluation>,
    /// Of the model as it is now.
    pub after: Option<Evaluation>,
    /// The best evaluation on the way and at the end; `None` where there was none on the way.
    pub best: Option<Best>,
    /// The update that left the model as it is now.
    pub step: usize,
}

/// A run: a model on its way through a plan.
pub struct Trainer<'a, R> {
    model: Tuned,
    recipe: R,
    plan: Plan,
    run: RunDirectory,
    progress: Progress,
    events: Option<Events>,
    samples: Option<Samples<'a>>,
    alarms: Alarms,
    saved: Instant,
    /// The update that the last checkpoint is of.
    saved_step: usize,
    /// A hash of each parameter that is trained, as it was before the first update.
    begun: Vec<String>,
    before: Option<Evaluation>,
    /// The evaluation after the last update, if the plan wanted one.
    latest: Option<Evaluation>,
}

/// One update of each run, none of which is done, in one pass over the batches of all: see [`step`]. They write their checkpoints
/// together, so that whenever they are resumed the same batches meet.
///
/// # Errors
/// A device that failed. Of a run: what [`Trainer::train`] says.
pub fn advance<R: Recipe>(runs: &mut [&mut Trainer<R>], listen: &mut ListenerOfAll) -> Result<Vec<Result<()>>> {
    for (at, run) in runs.iter_mut().enumerate() {
        let Trainer { recipe, model, progress, .. } = &mut **run;
        let prepared = recipe.prepare(model, progress.step, &mut |done, of| listen(at, Event::Preparing { done, of }));
        // Whatever it met, the updates before it are whole.
        if prepared.is_err() && run.progress.step > run.saved_step {
            run.save()?;
        }
        prepared?;
    }
    let metrics = step(&mut runs.iter_mut().map(|run| run.turn()).collect::<Vec<_>>())?;
    let taken = runs.iter_mut().zip(metrics).enumerate();
    let taken: Vec<Result<Taken>> =
        taken.map(|(at, (run, metrics))| run.take(metrics?, &mut |event| listen(at, event))).collect();
    let is = |is: fn(&Taken) -> bool| taken.iter().flatten().any(is);
    let (saves, stops) = (is(|taken| taken.saves), is(|taken| taken.stops));
    let end = |(run, taken): (&mut &mut Trainer<R>, Result<Taken>)| {
        taken?;
        if saves || stops {
            run.save()?;
        }
        if stops && !run.is_done() { Err(Error::Interrupted) } else { Ok(()) }
    };
    Ok(runs.iter_mut().zip(taken).map(end).collect())
}

/// What an update asks for.
struct Taken {
    /// A checkpoint.
    saves: bool,
    /// That the run stops before its end.
    stops: bool,
}

impl<'a, R: Recipe> Trainer<'a, R> {
    /// Before the first update.
    pub fn new(model: Tuned, recipe: R, plan: Plan, run: RunDirectory) -> Trainer<'a, R> {
        let progress = Progress::beside(&model, recipe.parameters(), &plan);
        Trainer {
            model,
            recipe,
            plan,
            run,
            progress,
            events: None,
            samples: None,
            alarms: Alarms::default(),
            saved: Instant::now(),
            saved_step: 0,
            begun: Vec::new(),
            before: None,
            latest: None,
        }
    }

    /// Writes the figures for TensorBoard too.
    ///
    /// # Errors
    /// A run's folder that cannot be read.
    pub fn write_events(&mut self) -> Result<()> {
        self.events = Some(self.run.events()?);
        Ok(())
    }

    /// Lets the model speak at every evaluation, and writes what it says.
    pub fn write_samples(&mut self, samples: Samples<'a>) {
        self.samples = Some(samples);
    }

    /// Goes on from the checkpoint in the run's folder, and cuts what was written after it; `false` where there is none yet.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, or is of other parameters or of a later step than the plan's last.
    pub fn resume(&mut self) -> Result<bool> {
        self.begun = self.progress.fingerprints()?;
        let (found, state) = self.run.resume(&mut self.progress)?;
        if let Some(state) = state {
            let place = self.run.path().display();
            let refused = |message| Error::Data { message: format!("the checkpoint in {place}: {message}") };
            self.recipe.restore(state).map_err(refused)?;
        }
        let (at, steps) = (self.progress.step, self.plan.steps);
        self.saved_step = at;
        if at > steps {
            let place = self.run.path().display();
            let message = format!("the checkpoint in {place} is of step {at}: expected one of at most {steps}");
            return Err(Error::Data { message });
        }
        self.run.cut(METRICS, |step| step <= at)?;
        for line in self.run.lines(METRICS)? {
            self.alarms.hear(&|name| line[name].as_f64());
        }
        // What was found at an end is found again: more steps may have come to the plan.
        for name in [EVALUATIONS, SAMPLES] {
            self.run.cut(name, |step| found && step <= at && (step == 0 || self.is_due(step)))?;
        }
        let mut evaluations = self.run.lines(EVALUATIONS)?.into_iter().filter_map(Evaluation::of_line);
        self.before = evaluations.find(|(step, _)| *step == 0).map(|(_, before)| before);
        if let Some(events) = &self.events {
            events.cut(at)?;
        }
        Ok(found)
    }

    fn save(&mut self) -> Result<()> {
        self.run.save(&self.progress, self.recipe.state())?;
        (self.saved, self.saved_step) = (Instant::now(), self.progress.step);
        Ok(())
    }

    /// Updates done.
    pub fn step(&self) -> usize {
        self.progress.step
    }

    /// The model as it is now.
    pub fn model(&self) -> &Tuned {
        &self.model
    }

    /// What is learnt.
    pub fn recipe(&self) -> &R {
        &self.recipe
    }

    /// How it goes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it goes.
    pub fn run(&mut self) -> &mut RunDirectory {
        &mut self.run
    }

    /// Trains to the plan's last step, or until its patience ends. Writes `metrics.jsonl` and, as often as the plan says, at the
    /// end, and whenever an evaluation is the best so far, a checkpoint. Where there were evaluations on the way, the model is
    /// then the best of them all, unless the plan keeps the last.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where `listen` broke before the end: whatever was done is in the checkpoint. A parameter that no
    /// gradient reaches, parameters that all stayed as they were, a loss that is not finite (naming the first op whose output was
    /// not), a full disk, a device that failed: the last checkpoint stays.
    pub fn train(&mut self, listen: &mut Listener) -> Result<Outcome> {
        self.begin(listen)?;
        while !self.is_done() {
            advance(&mut [&mut *self], &mut |_, event| listen(event))?.into_iter().collect::<Result<()>>()?;
        }
        self.end(listen)
    }

    /// What comes before the first of the updates that are left: the evaluation of a model that is still as it was.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn begin(&mut self, listen: &mut Listener) -> Result<()> {
        let Trainer { recipe, model, progress, run, .. } = self;
        recipe.begin(model, progress.step, run, &mut |done, of| listen(Event::Beginning { done, of }))?;
        if self.progress.step == 0 {
            self.before = self.evaluate(Moment::Before, listen)?;
        }
        if self.begun.is_empty() {
            self.begun = self.progress.fingerprints()?;
        }
        Ok(())
    }

    /// What comes after the last update: the last evaluation, and the best parameters in the place of the last ones.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn end(&mut self, listen: &mut Listener) -> Result<Outcome> {
        let steps = self.progress.step;
        if steps > 0 && self.progress.unmoved(&self.begun)?.len() == self.begun.len() {
            return Err(match self.alarms.why_nothing_is_learnt() {
                None => Error::Unmoved { steps },
                Some(why) => Error::Data { message: format!("nothing was learnt in {}: {why}", counted(steps, "step")) },
            });
        }
        let last = match self.latest.take() {
            None => self.evaluate(Moment::After, listen)?,
            latest => latest,
        };
        let (before, mut best, step) = (self.before.take(), self.progress.best, self.progress.step);
        // The end need not be a moment at which the plan looks.
        let loss = last.as_ref().map(|last| last.loss).filter(|_| self.plan.eval_every > 0);
        if let Some(loss) = loss.filter(|loss| best.is_none_or(|best| *loss < best.loss)) {
            best = Some(Best { step, loss });
        }
        match best {
            Some(kept) if kept.step < step && !self.plan.keep_last => {
                self.run.restore_best(&self.progress)?;
                let after = self.evaluate(Moment::Kept(kept.step), listen)?;
                Ok(Outcome { before, after, best, step: kept.step })
            }
            _ => Ok(Outcome { before, after: last, best, step }),
        }
    }

    /// Whether it made all its updates, or its patience ended.
    pub fn is_done(&self) -> bool {
        let is_tired = self.plan.patience > 0 && self.progress.waited >= self.plan.patience;
        is_tired || self.progress.step >= self.plan.steps
    }

    /// Whether the plan wants an evaluation after this update.
    fn is_due(&self, step: usize) -> bool {
        self.plan.eval_every > 0 && step.is_multiple_of(self.plan.eval_every)
    }

    /// The next update.
    fn turn(&mut self) -> Turn<'_, R> {
        Turn::new(&self.model, &self.recipe, &self.plan, &mut self.progress)
    }

    /// What belongs to an update that was made.
    fn take(&mut self, mut metrics: Metrics, listen: &mut Listener) -> Result<Taken> {
        self.latest = if self.is_due(metrics.step) { self.evaluate(Moment::At(metrics.step), listen)? } else { None };
        metrics.figures.extend(self.recipe.told(metrics.step - 1));
        metrics.alarms = self.alarms.hear(&|name| metrics.figures.get(name).copied());
        metrics.validation_loss = self.latest.as_ref().map(|evaluation| evaluation.loss);
        let improved = metrics.validation_loss.is_some_and(|loss| self.progress.judge(loss));
        if alarms::looks_for_unmoved(metrics.step) {
            metrics.alarms.extend(alarms::unmoved(metrics.step, &self.progress.unmoved(&self.begun)?, self.begun.len()));
        }
        self.recipe.heed(&metrics);
        self.run.append(METRICS, &metrics)?;
        if let Some(events) = &self.events {
            events.append(&metrics)?;
        }
        let stops = listen(Event::Step(&metrics)).is_break();
        let Plan { save_every, save_after, .. } = self.plan;
        let by_steps = save_every > 0 && metrics.step.is_multiple_of(save_every);
        let by_time = !save_after.is_zero() && self.saved.elapsed() >= save_after;
        Ok(Taken { saves: self.is_done() || improved || by_steps || by_time, stops })
    }

    /// Looks at the model: its loss on what was held out, and what it says.
    fn evaluate(&self, moment: Moment, listen: &mut Listener) -> Result<Option<Evaluation>> {
        // On the way it belongs to the step, which is always finished.
        let is_part_of_a_step = matches!(moment, Moment::At(_));
        let evaluation = self.recipe.validate(&self.model, &mut |done, of| {
            let heard = listen(Event::Validating { moment, done, of });
            if is_part_of_a_step { ControlFlow::Continue(()) } else { heard }
        })?;
        if let Some(evaluation) = &evaluation {
            // Whoever breaks now is heard at the next update.
            let _ = listen(Event::Evaluated { moment, evaluation });
        }
        // After all it says nothing new where it was just heard on the way.
        let is_heard = match moment {
            Moment::Before | Moment::At(_) => true,
            Moment::After => !self.is_due(self.progress.step),
            Moment::Kept(_) => false,
        };
        if !is_heard {
            return Ok(evaluation);
        }
        let step = self.progress.step;
        if let Some(evaluation) = &evaluation {
            self.run.append(EVALUATIONS, &evaluation.line(step))?;
            evaluation.samples.iter().try_for_each(|sample| self.run.append(SAMPLES, &Sample { step, ..sample.clone() }))?;
        }
        if let Some(samples) = &self.samples {
            for sample in samples.of(&self.model, step)? {
                self.run.append(SAMPLES, &sample)?;
                let _ = listen(Event::Sampled(&sample));
            }
        }
        Ok(evaluation)
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
