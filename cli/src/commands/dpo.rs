//! `wgtune dpo`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use wgtune_models::data::encode::Example;
use wgtune_models::data::rows::Format;
use wgtune_models::rl::comparisons::{Comparisons, comparisons};
use wgtune_models::rl::dpo::Dpo;
use wgtune_models::rl::loss::{PAIR_LOSSES, PairLoss};

use crate::common::{Outcome, note};
use crate::config::Given;
use crate::learning::{Ground, Kind, Learning};
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
        static ALL: [Loss; PAIR_LOSSES.len()] =
            [Loss(&PAIR_LOSSES[0]), Loss(&PAIR_LOSSES[1]), Loss(&PAIR_LOSSES[2]), Loss(&PAIR_LOSSES[3])];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name).help(self.0.about))
    }
}

/// Rows of pairs and ranks.
pub const WANTED: &[Format] = &[Format::Preference, Format::Ranked];

/// Trains and writes the result.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let Arguments { learning, loss, beta, label_smoothing, sft } = arguments;
    // TRL's rate is a twentieth of that of supervised tuning.
    learning.run(given, &Kind { wanted: WANTED, rate: 0.05, scores: false }, |ground| {
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
    })
}

/// The comparisons of the rows, and of those held out; and the answers to train on.
pub fn pairs(ground: &Ground) -> wgtune_models::Result<(Comparisons, Option<Comparisons>, Vec<Example>)> {
    let Ground { dataset, training, validation, encoder, padding, batch_size, order, .. } = ground;
    let (all, report) = comparisons(encoder, dataset, training)?;
    let (held_out, _) = comparisons(encoder, dataset, validation)?;
    note(&report);
    if all.is_empty() {
        let message = format!("nothing to learn: {report}; expected rows whose answers differ within the length");
        return Err(wgtune_models::Error::Data { message });
    }
    let examples = all.iter().flat_map(|comparison| comparison.answers.clone()).collect();
    let held_out = (!held_out.is_empty()).then(|| Comparisons::new(held_out, *batch_size, None, *padding));
    Ok((Comparisons::new(all, *batch_size, *order, *padding), held_out, examples))
}
