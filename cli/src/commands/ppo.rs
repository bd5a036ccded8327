//! `wgtune ppo`.

use clap::{Args, ValueEnum};
use wgtune_models::rl::advantage::Discount;
use wgtune_models::rl::critic::Critic;
use wgtune_models::rl::loss::Estimator;
use wgtune_models::rl::policy::Clip;
use wgtune_models::rl::ppo::Ppo;
use wgtune_models::rl::shaping::{KlCost, Shaping};

use crate::common::Outcome;
use crate::config::Given;
use crate::numbers::{above_zero, at_least_zero, share, whole, zero_or_above_one};
use crate::playing::{Play, Playing};
use crate::report::Report;
use crate::runs::Failure;

/// Learns from its own answers, token by token, with a critic that learns what each is worth (PPO)
#[derive(Args)]
#[command(after_help = "Rows are {\"prompt\": …}, a text or messages, or any with a completion.\n\n\
    Examples:\n  wgtune ppo --model DIR --data prompts.jsonl --out DIR --reward-model REWARD\n  \
    wgtune ppo --model DIR --data prompts.jsonl --out DIR --reward-rule 'regex=thank' --critic shared --kl-target 6")]
#[command(mut_arg("batch_size", |argument| argument.default_value("16")))]
pub struct Arguments {
    #[command(flatten)]
    pub playing: Playing,
    /// How often the answers of a phase are learnt from
    #[arg(long, default_value_t = 4, value_parser = whole(1..=1024), value_name = "EPOCHS")]
    phase_epochs: usize,
    /// What the critic is: a model of its own, tuned by the same method, or a vector on the policy's own hidden states
    #[arg(long, value_enum, default_value_t = CriticKind::Own)]
    critic: CriticKind,
    /// The critic's learning rate, in that of the policy
    #[arg(long, default_value_t = 10.0, value_parser = above_zero, value_name = "FACTOR")]
    critic_rate: f64,
    /// Updates in which the critic learns alone
    #[arg(long, default_value_t = 0, value_parser = whole(0..=1_000_000), value_name = "UPDATES")]
    critic_warmup: usize,
    /// What a nat of distance from the model as it was costs
    #[arg(long, default_value_t = 0.05, value_parser = at_least_zero)]
    kl_coef: f64,
    /// How that distance is estimated
    #[arg(long, value_enum, default_value_t = Estimate::K1)]
    kl_estimator: Estimate,
    /// Let --kl-coef follow this distance of an answer, in nats; 0 lets it stay
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero, value_name = "NATS")]
    kl_target: f64,
    /// Over how many answers it follows
    #[arg(long, default_value_t = 10_000.0, value_parser = above_zero, value_name = "ANSWERS")]
    kl_horizon: f64,
    /// What a reward one token later is worth
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    gamma: f64,
    /// How far advantages look ahead: from nearly 0, which trusts the critic, to 1, which trusts the rewards
    #[arg(long, default_value_t = 0.95, value_parser = share)]
    lambda: f64,
    /// The same of what the critic learns [default: --lambda]
    #[arg(long, value_parser = share)]
    critic_lambda: Option<f64>,
    /// A ratio counts as no less than 1 minus this, and no more than 1 plus it
    #[arg(long, default_value_t = 0.2, value_parser = above_zero)]
    cliprange: f64,
    /// Where an advantage is below 0, its loss is at most so many times its size; 0 is any
    #[arg(long, default_value_t = 0.0, value_parser = zero_or_above_one)]
    dual_clip: f64,
    /// How far an update may take a value; 0 is any
    #[arg(long, default_value_t = 0.2, value_parser = at_least_zero)]
    cliprange_value: f64,
    /// What the critic's loss weighs
    #[arg(long, default_value_t = 0.1, value_parser = above_zero)]
    vf_coef: f64,
    /// What the policy's entropy earns
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    entropy_coef: f64,
    /// Scores are held within this of 0; 0 is any
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    reward_clip: f64,
    /// What an answer costs that does not end
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    missing_eos_penalty: f64,
    /// Scale the rewards of tokens to a deviation of 1
    #[arg(long)]
    whiten_rewards: bool,
    /// A phase is over once the policy is so far from what it was; 0 is never
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero, value_name = "NATS")]
    target_kl: f64,
}

/// The names of [`Critic`].
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum CriticKind {
    /// A model of its own
    Own,
    /// A vector on the policy's hidden states
    Shared,
}

/// The names of [`Estimator`].
#[derive(Clone, Copy, ValueEnum)]
enum Estimate {
    /// ln(policy / reference)
    K1,
    /// Never below 0, and of less variance
    K3,
}

/// Trains, writes the result and says what it came to.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    train(arguments, given)?.print(arguments.playing.learning.json)
}

// TRL's rate is three twentieths of that of supervised tuning.
fn kind(arguments: &Arguments) -> Play {
    Play { rate: 0.15, each: 1, epochs: arguments.phase_epochs }
}

/// Checks that options go together.
pub fn check(arguments: &Arguments) -> Outcome {
    if arguments.kl_target > 0.0 && arguments.kl_coef == 0.0 {
        return Err("--kl-target moves --kl-coef by shares of it, and that is 0: expected one above 0".into());
    }
    let training = &arguments.playing.learning.training;
    if arguments.critic_warmup > 0 && training.weight_decay > 0.0 {
        return Err("--weight-decay moves the policy while --critic-warmup has it stand: expected one of them".into());
    }
    arguments.playing.check_options(&kind(arguments))
}

/// Trains and writes the result.
pub fn train(arguments: &Arguments, given: &Given) -> Result<Report, Failure> {
    check(arguments)?;
    arguments.playing.run(given, &kind(arguments), |ground| {
        let updates = arguments.playing.learning.training.updates(ground.player.batches_per_epoch());
        if arguments.critic_warmup >= updates {
            let warmup = arguments.critic_warmup;
            return Err(format!("--critic-warmup is {warmup}: expected fewer than the {updates} updates of the run").into());
        }
        let device = ground.reference.decoder.device();
        // It says 0 at first.
        let head = device.zeros([1, ground.base.blueprint().hidden_size]);
        let critic = match arguments.critic {
            CriticKind::Shared => Critic::Shared(head.requiring_grad(), arguments.critic_rate),
            CriticKind::Own => {
                let critic = ground.tuning.begin(ground.base, (ground.own)()?.scoring(head), ground.seed)?;
                Critic::Own(Box::new(critic), arguments.critic_rate)
            }
        };
        Ok(Ppo {
            player: ground.player,
            reference: ground.reference,
            critic,
            estimator: match arguments.kl_estimator {
                Estimate::K1 => Estimator::K1,
                Estimate::K3 => Estimator::K3,
            },
            kl: KlCost { coefficient: arguments.kl_coef, target: arguments.kl_target, horizon: arguments.kl_horizon },
            discount: Discount {
                gamma: arguments.gamma,
                policy: arguments.lambda,
                critic: arguments.critic_lambda.unwrap_or(arguments.lambda),
            },
            clip: Clip { low: arguments.cliprange as f32, high: arguments.cliprange as f32, dual: arguments.dual_clip as f32 },
            value_clip: arguments.cliprange_value as f32,
            value_weight: arguments.vf_coef as f32,
            entropy_weight: arguments.entropy_coef as f32,
            shaping: Shaping {
                clip: arguments.reward_clip,
                missing_end: arguments.missing_eos_penalty,
                whitens: arguments.whiten_rewards,
            },
            warmup: arguments.critic_warmup,
            checkpoint_blocks: ground.checkpoint_blocks,
            target_kl: arguments.target_kl,
        })
    })
}
