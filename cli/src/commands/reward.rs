//! `wgtune reward`.

use clap::Args;
use wgtune_models::rl::reward::Reward;

use crate::common::Outcome;
use crate::config::Given;
use crate::learning::{Kind, Learning, RANKED, pairs};
use crate::numbers::at_least_zero;
use crate::report::Report;
use crate::runs::Failure;

/// Trains a reward model, which gives a text a score, from pairs or ranks of answers
#[derive(Args)]
#[command(after_help = "Rows are those of wgtune dpo, and may have a margin.\n\n\
    Examples:\n  wgtune reward --model DIR --data pairs.jsonl --out DIR\n  \
    wgtune reward --model DIR --data pairs.jsonl --out DIR --method full --centre 0.01\n  \
    wgtune score --model DIR --adapter DIR --data answers.jsonl")]
pub struct Arguments {
    #[command(flatten)]
    pub learning: Learning,
    /// What keeps scores around 0 weighs; 0.01 is usual, and 0 is nothing
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero, value_name = "WEIGHT")]
    centre: f64,
}

/// Trains, writes the result and says what it came to.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    train(arguments, given)?.print(arguments.learning.json)
}

/// Trains and writes the result.
pub fn train(arguments: &Arguments, given: &Given) -> Result<Report, Failure> {
    // TRL's rate for all methods is half of that of supervised tuning by LoRA.
    arguments.learning.run(given, &Kind { wanted: RANKED, rate: 0.5, scores: true }, |ground| {
        let (training, validation, examples) = pairs(&ground)?;
        let recipe = Reward { training, validation, centre: arguments.centre as f32, batch_size: 2 * ground.batch_size };
        Ok((recipe, examples))
    })
}
