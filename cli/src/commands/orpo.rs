//! `wgtune orpo`.

use clap::Args;
use wgtune_models::rl::orpo::Orpo;

use crate::common::Outcome;
use crate::config::Given;
use crate::learning::{Kind, Learning, RANKED, pairs};
use crate::numbers::above_zero;

/// Learns from pairs of answers the better one, and that the other is less likely, without a reference (ORPO)
#[derive(Args)]
#[command(after_help = "Rows are those of wgtune dpo.\n\n\
    Example:\n  wgtune orpo --model DIR --data pairs.jsonl --out DIR --method full")]
pub struct Arguments {
    #[command(flatten)]
    learning: Learning,
    /// What the odds of the two answers weigh beside the cross-entropy of the better one
    #[arg(long, default_value_t = 0.1, value_parser = above_zero)]
    beta: f64,
}

/// Trains and writes the result.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    // It has the cross-entropy of supervised tuning, and the paper's rate is two fifths of that.
    let report = arguments.learning.run(given, &Kind { wanted: RANKED, rate: 0.4, scores: false }, |ground| {
        let (training, validation, examples) = pairs(&ground)?;
        Ok((Orpo { training, validation, beta: arguments.beta as f32 }, examples))
    })?;
    report.print(arguments.learning.json)
}
