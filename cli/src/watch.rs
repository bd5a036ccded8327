//! A run of training as it is watched: progress on standard error, the metrics kept, kernels timed, an interrupt passed on.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use wgtune_engine::Device;
use wgtune_models::train::metrics::{Evaluation, Metrics};
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
    bar: Option<Progress>,
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
        Ok(Watch { interrupted, metrics: Vec::new(), steps, bar: None, profiler, failed: None })
    }

    /// Hears what happens.
    pub fn hear(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Step(metrics) => {
                if let Some(profiler) = &mut self.profiler {
                    self.failed = self.failed.take().or(profiler.after(metrics.step).err());
                }
                let note = format!("loss {:.4}, {:.0} tokens/s", metrics.loss, metrics.tokens_per_second);
                self.bar("training", self.steps, metrics.step - 1).advance(&note);
                self.metrics.push(metrics.clone());
            }
            Event::Validating { done, of } => self.bar("validating", of, done - 1).advance(""),
            Event::Evaluated { moment, evaluation } => {
                self.bar = None;
                note(line(moment, evaluation));
            }
        }
        unless(self.interrupted)
    }

    /// The bar of this work, which begins with `done` parts where another was shown.
    fn bar(&mut self, what: &'static str, total: usize, done: usize) -> &mut Progress {
        let shown = self.bar.take().filter(|bar| bar.what() == what);
        self.bar.insert(shown.unwrap_or_else(|| Progress::new(what, total, done)))
    }

    /// Ends a run that came to its end: prints and writes what was timed.
    pub fn finish(self) -> Result<Vec<Metrics>, Box<dyn std::error::Error>> {
        drop(self.bar);
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
        Moment::Before => "before",
        Moment::After => "after",
    };
    let tokens = counted(*trained_tokens, "trained token");
    format!("validation {when}: loss {loss:.4}, perplexity {:.2} ({tokens})", loss.exp())
}
