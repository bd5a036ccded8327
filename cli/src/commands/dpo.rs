//! `wgtune dpo`.

use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use wgtune_models::rl::dpo::Dpo;
use wgtune_models::rl::loss::{PAIR_LOSSES, PairLoss};

use crate::common::Outcome;
use crate::config::Given;
use crate::learning::{Kind, Learning, RANKED, pairs};
use crate::numbers::{above_zero, at_least_zero, below_half};

/// Learns from pairs of answers which one is better, beside the model as it was (DPO, IPO)
#[derive(Args)]
#[command(
    after_help = "Rows are {\"prompt\": …, \"chosen\": …, \"rejected\": …}, texts or messages, or {\"prompt\": …, \"answers\": [best, …]}.\n\n\
    Examples:\n  wgtune dpo --model DIR --data pairs.jsonl --out DIR\n  \
    wgtune dpo --model DIR --data pairs.jsonl --out DIR --loss ipo --beta 0.05 --method full"
)]
pub struct Arguments {
    #[command(flatten)]
    learning: Learning,
    /// Which loss
    #[arg(long, default_value = "sigmoid")]
    loss: Loss,
    /// How dear it is to leave the model as it was
    #[arg(long, default_value_t = 0.1, value_parser = above_zero)]
    beta: f64,
    /// The share of preferences that may be wrong
    #[arg(long, default_value_t = 0.0, value_parser = below_half, value_name = "SHARE")]
    label_smoothing: f64,
    /// What the cross-entropy of the better answer weighs beside it; 0 is nothing
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero, value_name = "WEIGHT")]
    sft: f64,
}

/// One of the losses.
#[derive(Clone, Copy)]
struct Loss(&'static PairLoss);

impl ValueEnum for Loss {
    fn value_variants<'a>() -> &'a [Loss] {
        static ALL: LazyLock<Vec<Loss>> = LazyLock::new(|| PAIR_LOSSES.iter().map(Loss).collect());
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name).help(self.0.about))
    }
}

/// Trains and writes the result.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let Arguments { learning, loss, beta, label_smoothing, sft } = arguments;
    if *label_smoothing > 0.0 && !loss.0.smooths {
        return Err(
            format!("--label-smoothing is of other losses than {}: expected --loss sigmoid or robust", loss.0.name).into()
        );
    }
    // TRL's rate is a twentieth of that of supervised tuning.
    let report = learning.run(given, &Kind { wanted: RANKED, rate: 0.05, scores: false }, |ground| {
        let (training, validation, examples) = pairs(&ground)?;
        let recipe = Dpo {
            training,
            validation,
            loss: loss.0,
            beta: *beta as f32,
            smoothing: *label_smoothing as f32,
            sft: *sft as f32,
            reference: ground.reference,
            batch_size: 2 * ground.batch_size,
        };
        Ok((recipe, examples))
    })?;
    report.print(arguments.learning.json)
}
