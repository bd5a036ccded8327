//! What is told of a run as it goes, and who hears it.

use std::ops::ControlFlow;

use super::metrics::{Evaluation, Metrics};
use super::samples::Sample;

/// What a run tells as it goes.
pub enum Event<'a> {
    /// So many batches are done of what a recipe does before all else.
    Beginning {
        /// These.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// So many parts are done of what comes before an update.
    Preparing {
        /// These.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// An update was made.
    Step(&'a Metrics),
    /// So many batches of an evaluation are done.
    Validating {
        /// When.
        moment: Moment,
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
    /// The model said something.
    Sampled(&'a Sample),
}

/// When a model is evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Before the first update.
    Before,
    /// On the way, after this update.
    At(usize),
    /// After the last one.
    After,
    /// After all, with the parameters that this update left, which were the best.
    Kept(usize),
}

/// Hears what happens. Where it breaks, the run stops as soon as nothing is lost by that.
pub type Listener<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

/// Hears what happens to each of several runs, by its number.
pub type ListenerOfAll<'a> = dyn FnMut(usize, Event) -> ControlFlow<()> + 'a;
