//! Training: what every recipe shares, and the recipes.

mod alarms;
pub mod answers;
pub mod checkpoint;
pub mod choices;
pub mod evaluate;
pub mod event;
pub mod metrics;
pub mod pass;
pub mod recipe;
pub mod record;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod sft;
mod tensorboard;
pub mod trainer;
pub mod update;
