//! The embedded default: a tiny language of the project's own making.
//!
//! - [`language`]: what the base model is trained on: short stories, questions with answers, and
//!   reviews whose mood shows in their words and is never named;
//! - [`task`]: what `wgtune demo` teaches it: to name the mood of a review and give the reason;
//! - [`opinion`]: what `wgtune demo --rlhf` teaches it by judgements: to write cheerful reviews.
//!
//! Everything is a pure function of a seed and an index: the same seed gives the same text on every
//! machine, and row `i` is the same however many rows are asked for.

pub mod base;
pub mod language;
pub mod opinion;
pub mod task;

pub use review::{Mood, mood};

mod plots;
mod question;
mod random;
mod review;
mod story;
mod template;
mod words;

/// A text and what should follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Ends without a space.
    pub prompt: String,
    /// Starts with a space, ends with a full stop.
    pub completion: String,
}
