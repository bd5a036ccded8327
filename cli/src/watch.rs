//! A run of training as it is watched: progress on standard error, the metrics kept, kernels timed, an interrupt passed on.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use wgtune_engine::Device;
use wgtune_models::train::metrics::{Evaluation, Metrics};
use wgtune_models::train::samples::Sample;
use wgtune_models::train::trainer::{Event, Moment};
use wgtune_models::wording::counted;

use crate::common::note;
use crate::profile::Profiler;
use crate::progress::Progress;

/// Watches one run.
pub struct Watch<'a> {
    interrupted: &'a AtomicBool,
    /// Of this process.
    pub metrics: Vec<Metrics>,
    steps: usize,
    /// Of the updates, and of an evaluation before or after them.
    training: Option<Progress>,
    validating: Option<Progress>,
    profiler: Option<Profiler>,
    failed: Option<Box<dyn std::error::Error>>,
}

impl<'a> Watch<'a> {
    /// Of a run that has so many `steps`, of which `done` are done; where there is a file `profile`, kernels are timed for it.
    pub fn new(
        steps: usize,
        done: usize,
        profile: Option<&Path>,
        device: &Device,
        interrupted: &'a AtomicBool,
    ) -> wgtune_models::Result<Watch<'a>> {
        let profiler = profile.map(|file| Profiler::new(file, device, done + 1)).transpose()?;
        Ok(Watch { interrupted, metrics: Vec::new(), steps, training: None, validating: None, profiler, failed: None })
    }

    /// Hears what happens.
    pub fn hear(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Step(metrics) => {
                if let Some(profiler) = &mut self.profiler {
                    self.failed = self.failed.take().or(profiler.after(metrics.step).err());
                }
                let note = format!("loss {:.4}, {:.0} tokens/s", metrics.loss, metrics.tokens_per_second);
                let begin = || Progress::new("training", self.steps, metrics.step - 1);
                self.training.get_or_insert_with(begin).advance(&note);
                self.metrics.push(metrics.clone());
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
                self.say(&line(moment, evaluation));
            }
            Event::Sampled(Sample { step, prompt, text }) => {
                self.say(&format!("sample after step {step}: {prompt:?} -> {text:?}"))
            }
        }
        unless(self.interrupted)
    }

    fn say(&self, text: &str) {
        match &self.training {
            Some(bar) => bar.say(text),
            None => note(text),
        }
    }

    /// Ends a run that came to its end: prints and writes what was timed.
    pub fn finish(self) -> Result<Vec<Metrics>, Box<dyn std::error::Error>> {
        drop((self.training, self.validating));
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.profiler.map_or(Ok(()), Profiler::finish)?;
        Ok(self.metrics)
    }
}

/// Goes on unless that was interrupted.
pub fn unless(interrupted: &AtomicBool) -> ControlFlow<()> {
    if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn line(moment: Moment, Evaluation { loss, trained_tokens, .. }: &Evaluation) -> String {
    let when = match moment {
        Moment::Before => "before".into(),
        Moment::At(step) => format!("after step {step}"),
        Moment::After => "after".into(),
        Moment::Kept(step) => format!("of the best, step {step}"),
    };
    let tokens = counted(*trained_tokens, "trained token");
    format!("validation {when}: loss {loss:.4}, perplexity {:.2} ({tokens})", loss.exp())
}
