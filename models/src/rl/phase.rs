//! A phase of learning from a policy's own answers: they are drawn and judged, and then learnt from in batches for a few updates.

use serde::{Deserialize, Serialize};

use super::advantage::moments;
use super::rollout::Rollout;
use crate::data::batch::Batch;
use crate::train::metrics::{Figures, figures};
use crate::train::pass::Lesson;
use crate::transformer::Rows;

/// An answer, and all that is learnt from it, token by token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// Which of all prompts it answers.
    pub prompt: usize,
    /// Its tokens.
    pub answer: Vec<u32>,
    /// Whether it is learnt from.
    pub counts: bool,
    /// What is learnt of each.
    pub tokens: PerToken,
}

/// What is learnt of tokens: a number for each, [N], or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PerToken {
    /// How likely the sampler found it when it was drawn, in nats.
    pub sampled: Numbers,
    /// How likely the policy finds it as it was then, in nats; none where it is learnt from before the policy changes.
    pub old: Numbers,
    /// How likely the reference finds it, in nats; none where it is not asked.
    pub reference: Numbers,
    /// How much better it was than expected.
    pub advantages: Numbers,
    /// What the critic said of it; none where there is no critic.
    pub values: Numbers,
    /// What it should have said.
    pub returns: Numbers,
}

impl PerToken {
    /// Those of several answers, one behind the other.
    pub fn joined<'a>(all: impl IntoIterator<Item = &'a PerToken>) -> PerToken {
        let mut joined = PerToken::default();
        for one in all {
            for (to, from) in joined.lists().into_iter().zip(one.clone().lists()) {
                to.append(from);
            }
        }
        joined
    }

    fn lists(&mut self) -> [&mut Vec<f32>; 6] {
        let PerToken { sampled, old, reference, advantages, values, returns } = self;
        [sampled, old, reference, advantages, values, returns].map(|Numbers(numbers)| numbers)
    }
}

/// Numbers that a checkpoint keeps to the bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<u32>", into = "Vec<u32>")]
pub struct Numbers(pub Vec<f32>);

impl From<Vec<u32>> for Numbers {
    fn from(bits: Vec<u32>) -> Numbers {
        Numbers(bits.into_iter().map(f32::from_bits).collect())
    }
}

impl From<Numbers> for Vec<u32> {
    fn from(numbers: Numbers) -> Vec<u32> {
        numbers.0.into_iter().map(f32::to_bits).collect()
    }
}

/// The phase that a run is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its number, from 0.
    pub number: usize,
    /// The update that it began before.
    pub first: usize,
    /// Whether no more is learnt from it.
    pub is_over: bool,
    /// Its answers.
    pub all: Vec<Played>,
    /// What is told of it.
    pub told: Figures,
}

/// Answers of a batch, with what is learnt from them: all tokens' numbers one behind the other.
pub struct Plays {
    /// The answers.
    pub answers: Batch,
    /// What is learnt of their tokens.
    pub tokens: PerToken,
    /// Which prompt each row answers.
    pub prompts: Vec<usize>,
    /// The number of the update that they are for.
    pub update: usize,
    /// How many terms the loss is of.
    pub targets: usize,
    /// What each token weighs [N].
    pub weights: Vec<f32>,
}

impl Plays {
    /// What each token weighs where all that count weigh alike, and come to as much as the loss has terms.
    pub fn counted(&self) -> Vec<f32> {
        let tokens = self.weights.iter().filter(|weight| **weight > 0.0).count();
        let share = self.targets as f32 / tokens.max(1) as f32;
        self.weights.iter().map(|&weight| if weight > 0.0 { share } else { 0.0 }).collect()
    }
}

impl Lesson for Plays {
    fn rows(&self) -> Rows<'_> {
        self.answers.rows()
    }

    fn tokens(&self) -> usize {
        self.answers.tokens()
    }

    fn targets(&self) -> usize {
        self.targets
    }

    fn trained_tokens(&self) -> usize {
        self.answers.trained_tokens()
    }
}

/// What is told of answers and their rewards, of whichever way of learning.
pub fn figures_of(rollouts: &[Rollout], rewards: &[f64]) -> Figures {
    let (mean, deviation) = moments(rewards);
    let lengths: Vec<f64> = rollouts.iter().map(|rollout| rollout.ids.len() as f64).collect();
    let cut = rollouts.iter().filter(|rollout| !rollout.has_ended).count();
    figures([
        ("reward", mean),
        ("reward_std", deviation),
        ("completions/mean_length", moments(&lengths).0),
        ("completions/max_length", lengths.iter().copied().fold(0.0, f64::max)),
        ("completions/clipped_ratio", cut as f64 / rollouts.len().max(1) as f64),
    ])
}
