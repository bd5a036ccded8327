//! `wgtune kto`.

use clap::Args;
use wgtune_models::data::rows::Format;
use wgtune_models::rl::kto::Kto;
use wgtune_models::rl::labelled::{Labels, labelled};

use crate::common::{Outcome, note};
use crate::config::Given;
use crate::learning::{Ground, Kind, Learning, note_validation};
use crate::numbers::{above_zero, at_least_zero};

/// Learns from answers that are each called good or not, beside the model as it was (KTO)
#[derive(Args)]
#[command(
    after_help = "Rows are {\"prompt\": …, \"completion\": …, \"label\": true or false}, or those of wgtune dpo, of which the first \
    answer is good and the others are not.\n\n\
    Example:\n  wgtune kto --model DIR --data labels.jsonl --out DIR --bad-weight 1.5"
)]
pub struct Arguments {
    #[command(flatten)]
    learning: Learning,
    /// How dear it is to leave the model as it was
    #[arg(long, default_value_t = 0.1, value_parser = above_zero)]
    beta: f64,
    /// What a good answer weighs
    #[arg(long, default_value_t = 1.0, value_parser = at_least_zero, value_name = "WEIGHT")]
    good_weight: f64,
    /// What one that is not weighs; those of a kind should come to as much as those of the other, or up to a third more
    #[arg(long, default_value_t = 1.0, value_parser = at_least_zero, value_name = "WEIGHT")]
    bad_weight: f64,
}

const WANTED: &[Format] = &[Format::Labelled, Format::Preference, Format::Ranked];

/// Trains and writes the result.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let Arguments { learning, beta, good_weight, bad_weight } = arguments;
    // TRL's rate is a twentieth of that of supervised tuning.
    let report = learning.run(given, &Kind { wanted: WANTED, rate: 0.05, scores: false }, |ground| {
        let Ground { dataset, training, validation, encoder, padding, batch_size, order, max_length, reference } = ground;
        let (all, report) = labelled(&encoder, dataset, training)?;
        let (held_out, _) = labelled(&encoder, dataset, validation)?;
        note(&report);
        note_validation(validation.len(), held_out.len());
        if all.is_empty() {
            let message = format!("nothing to learn: {report}; expected answers within the length");
            return Err(wgtune_models::Error::Data { message });
        }
        let examples = all.iter().map(|labelled| labelled.answer.clone()).collect();
        let length = max_length - encoder.prefix;
        let labels = |all, order| Labels::new(all, batch_size, order, padding, length);
        let (validation, training) = ((!held_out.is_empty()).then(|| labels(held_out, None)), labels(all, order));
        let [good, bad] = training.counts();
        note(format!(
            "{good} good answers and {bad} others, which weigh {:.1} and {:.1}",
            good as f64 * good_weight,
            bad as f64 * bad_weight
        ));
        let recipe = Kto {
            training,
            validation,
            beta: *beta as f32,
            good_weight: *good_weight as f32,
            bad_weight: *bad_weight as f32,
            reference,
            batch_size: 2 * batch_size,
        };
        Ok((recipe, examples))
    })?;
    report.print(arguments.learning.json)
}
