//! `wgtune grpo`.

use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use wgtune_models::rl::advantage::Spread;
use wgtune_models::rl::grpo::{Grpo, Overlong};
use wgtune_models::rl::policy::{Clip, Objective, POLICY_LOSSES, PolicyLoss};

use crate::common::Outcome;
use crate::config::Given;
use crate::numbers::{above_zero, at_least_zero, whole};
use crate::playing::{Play, Playing};
use crate::report::Report;
use crate::runs::Failure;

/// Learns which of several own answers to a prompt are better than their mean (GRPO)
#[derive(Args)]
#[command(
    after_help = "Rows are {\"prompt\": …}, a text or messages, or any with a completion, which rules can compare with.\n\n\
    Examples:\n  wgtune grpo --model DIR --data sums.jsonl --out DIR --reward-rule exact --max-new-tokens 8\n  \
    wgtune grpo --model DIR --data prompts.jsonl --out DIR --reward-model REWARD --beta 0.04 --loss dr_grpo --scale-rewards none"
)]
#[command(mut_arg("batch_size", |argument| argument.default_value("16")))]
pub struct Arguments {
    #[command(flatten)]
    pub playing: Playing,
    /// Answers to each prompt
    #[arg(long, default_value_t = 8, value_parser = whole(2..=65_536), value_name = "ANSWERS")]
    answers: usize,
    /// How often the answers of a phase are learnt from
    #[arg(long, default_value_t = 1, value_parser = whole(1..=1024), value_name = "EPOCHS")]
    phase_epochs: usize,
    /// Which loss
    #[arg(long, default_value = "dapo")]
    loss: Loss,
    /// What an answer's advantage is divided by
    #[arg(long, value_enum, default_value_t = Scale::Group)]
    scale_rewards: Scale,
    /// What ratios to the policy that drew the answers are of
    #[arg(long, value_enum, default_value_t = Ratio::Token)]
    ratio: Ratio,
    /// A ratio counts as no less than 1 minus this
    #[arg(long, default_value_t = 0.2, value_parser = above_zero)]
    clip_low: f64,
    /// A ratio counts as no more than 1 plus this; with --loss cispo, 4 is usual
    #[arg(long, default_value_t = 0.2, value_parser = above_zero)]
    clip_high: f64,
    /// What the distance from the model as it was costs; 0 asks it nothing
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    beta: f64,
    /// Weigh that distance as if the policy of now had drawn the answers
    #[arg(long)]
    no_kl_correction: bool,
    /// What becomes of answers that are cut at --max-new-tokens
    #[arg(long, value_enum, default_value_t = TooLong::Keep)]
    overlong: TooLong,
    /// With --overlong penalise, how many tokens before the limit cost already [default: 16]
    #[arg(long, value_parser = whole(1..=1 << 24), value_name = "TOKENS")]
    overlong_margin: Option<usize>,
}

/// One of the losses.
#[derive(Clone, Copy)]
struct Loss(&'static PolicyLoss);

impl ValueEnum for Loss {
    fn value_variants<'a>() -> &'a [Loss] {
        static ALL: LazyLock<Vec<Loss>> = LazyLock::new(|| POLICY_LOSSES.iter().map(Loss).collect());
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name).help(self.0.about))
    }
}

/// The names of [`Spread`].
#[derive(Clone, Copy, ValueEnum)]
enum Scale {
    /// The deviation of the rewards of its prompt's answers
    Group,
    /// The deviation of all rewards of a phase
    Batch,
    /// Nothing
    None,
}

/// What a ratio is of.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Ratio {
    /// Each token
    Token,
    /// A whole answer, by the mean of its tokens (GSPO)
    Sequence,
}

/// The names of [`Overlong`].
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum TooLong {
    /// They are judged as they are
    Keep,
    /// They are not learnt from
    Drop,
    /// They cost 1, and those that come near the limit less, in a line
    Penalise,
}

/// Trains, writes the result and says what it came to.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    train(arguments, given)?.print(arguments.playing.learning.json)
}

// TRL's rate is a twentieth of that of supervised tuning.
fn kind(arguments: &Arguments) -> Play {
    Play { rate: 0.05, each: arguments.answers, epochs: arguments.phase_epochs }
}

/// Checks that options go together.
pub fn check(arguments: &Arguments) -> Outcome {
    if arguments.no_kl_correction && arguments.beta == 0.0 {
        return Err("--no-kl-correction is of a distance that weighs nothing: expected --beta above 0 too".into());
    }
    if arguments.overlong_margin.is_some() && arguments.overlong != TooLong::Penalise {
        return Err("--overlong-margin is of --overlong penalise: expected that too".into());
    }
    arguments.playing.check_options(&kind(arguments))
}

/// Trains and writes the result.
pub fn train(arguments: &Arguments, given: &Given) -> Result<Report, Failure> {
    check(arguments)?;
    arguments.playing.run(given, &kind(arguments), |ground| {
        let beta = arguments.beta as f32;
        Ok(Grpo {
            player: ground.player,
            objective: Objective {
                loss: arguments.loss.0,
                clip: Clip { low: arguments.clip_low as f32, high: arguments.clip_high as f32, dual: 0.0 },
                whole: arguments.ratio == Ratio::Sequence,
                beta,
                corrects: !arguments.no_kl_correction,
            },
            spread: match arguments.scale_rewards {
                Scale::Group => Spread::Group,
                Scale::Batch => Spread::Batch,
                Scale::None => Spread::None,
            },
            reference: (beta > 0.0).then_some(ground.reference),
            overlong: match arguments.overlong {
                TooLong::Keep => Overlong::Keep,
                TooLong::Drop => Overlong::Drop,
                TooLong::Penalise => Overlong::Penalise(arguments.overlong_margin.unwrap_or(16)),
            },
        })
    })
}
