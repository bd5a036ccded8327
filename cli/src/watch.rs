//! A run of training as it is watched: progress on standard error, the metrics kept, kernels timed, an interrupt passed on.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use wgtune_models::train::event::{Event, Moment};
use wgtune_models::train::metrics::{Evaluation, Metrics};
use wgtune_models::train::samples::Sample;
use wgtune_models::wording::counted;

use crate::common::note;
use crate::profile::Profiler;
use crate::progress::Progress;
use crate::report::spaced;

/// Watches one run, or several side by side.
pub struct Watch<'a> {
    interrupted: &'a AtomicBool,
    /// What begins what is said of each run.
    labels: Vec<String>,
    /// Of this process, run by run.
    metrics: Vec<Vec<Metrics>>,
    /// Of all runs, and how many of them were done before.
    steps: usize,
    done: usize,
    /// Of the updates, and of an evaluation before or after them.
    training: Option<Progress>,
    validating: Option<Progress>,
    profiler: Option<Profiler>,
    failed: Option<Box<dyn std::error::Error>>,
}

impl<'a> Watch<'a> {
    /// Of runs that have so many `steps` together, of which `done` are done. Kernels are timed of one alone.
    pub fn new(
        labels: Vec<String>,
        steps: usize,
        done: usize,
        profiler: Option<Profiler>,
        interrupted: &'a AtomicBool,
    ) -> Watch<'a> {
        let metrics = labels.iter().map(|_| Vec::new()).collect();
        Watch { interrupted, labels, metrics, steps, done, training: None, validating: None, profiler, failed: None }
    }

    /// The updates of a run that were made in this process.
    pub fn metrics(&self, run: usize) -> &[Metrics] {
        &self.metrics[run]
    }

    /// Hears what happens to a run.
    pub fn hear(&mut self, run: usize, event: Event) -> ControlFlow<()> {
        match event {
            Event::Beginning { done, of } => {
                self.validating.get_or_insert_with(|| Progress::new("reference", of, done - 1)).advance("");
            }
            Event::Preparing { done, of } => {
                let begin = || Progress::new("training", self.steps, self.done);
                self.training.get_or_insert_with(begin).tell(&format!("answering {done}/{of}"));
            }
            Event::Step(metrics) => {
                self.validating = None;
                if let Some(profiler) = &mut self.profiler {
                    self.failed = self.failed.take().or(profiler.after(metrics.step).err());
                }
                let note = format!("{}loss {:.4}, {:.0} tokens/s", self.labels[run], metrics.loss, metrics.tokens_per_second);
                let begin = || Progress::new("training", self.steps, self.done);
                self.training.get_or_insert_with(begin).advance(&note);
                self.done += 1;
                for alarm in &metrics.alarms {
                    self.say(run, &format!("alarm at step {}: {alarm}", metrics.step));
                }
                self.metrics[run].push(metrics.clone());
            }
            Event::Validating { moment: Moment::At(_), done, of } => {
                if let Some(bar) = &self.training {
                    bar.tell(&format!("validating {done}/{of}"));
                }
            }
            Event::Validating { done, of, .. } => {
                self.training = None;
                self.validating.get_or_insert_with(|| Progress::new("validating", of, done - 1)).advance("");
            }
            Event::Evaluated { moment, evaluation } => {
                self.validating = None;
                self.say(run, &line(moment, evaluation));
            }
            Event::Sampled(Sample { step, prompt, text, .. }) => {
                self.say(run, &format!("sample after step {step}: {prompt} -> {text:?}"))
            }
        }
        unless(self.interrupted)
    }

    /// Takes its bars away; the next update brings one again.
    pub fn clear(&mut self) {
        (self.training, self.validating) = (None, None);
    }

    fn say(&self, run: usize, text: &str) {
        let text = format!("{}{text}", self.labels[run]);
        match &self.training {
            Some(bar) => bar.say(&text),
            None => note(text),
        }
    }

    /// Ends runs that came to their ends: prints and writes what was timed.
    pub fn finish(mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.clear();
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.profiler.map_or(Ok(()), Profiler::finish)
    }
}

/// Goes on unless that was interrupted.
pub fn unless(interrupted: &AtomicBool) -> ControlFlow<()> {
    if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn line(moment: Moment, Evaluation { loss, figures, trained_tokens, .. }: &Evaluation) -> String {
    let when = match moment {
        Moment::Before => "before".into(),
        Moment::At(step) => format!("after step {step}"),
        Moment::After => "after".into(),
        Moment::Kept(step) => format!("of the best, step {step}"),
    };
    let tokens = counted(*trained_tokens, "trained token");
    let figures: String = figures.iter().map(|(name, value)| format!(", {} {value:.4}", spaced(name))).collect();
    format!("validation {when}: loss {loss:.4}{figures} ({tokens})")
}
