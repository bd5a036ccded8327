//! What a policy and its critic learn from advantages and returns: pure functions, token by token [N], of all answers' tokens one
//! behind the other. Each variant of a loss is a row of a table.

use wgtune_engine::{Tensor, ops};

use super::loss::{Estimator, clamp};
use crate::train::answers::Answers;

/// How far an update may take a policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// A ratio counts as no less than 1 - this.
    pub low: f32,
    /// And as no more than 1 + this.
    pub high: f32,
    /// Where an advantage is below 0, its loss is at most so many times its size; 0 is without bound (Ye et al. 2019,
    /// arXiv:1912.09729).
    pub dual: f32,
}

/// How tokens' losses become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Each answer alike, whatever its length.
    Answer,
    /// Each token of a batch alike.
    BatchToken,
    /// Each token alike, of all the batches behind an update.
    Token,
    /// Each token alike, as if all answers were as long as they may be.
    LongestToken,
}

impl Share {
    /// What each token weighs, of answers of these lengths that may be so long, and how many terms the sum is of then.
    pub fn of(self, lengths: &[usize], longest: usize) -> (Vec<f32>, usize) {
        let tokens: usize = lengths.iter().sum();
        let of_answer = |length: usize| match self {
            Share::Answer => 1.0 / length.max(1) as f32,
            Share::BatchToken => 1.0 / tokens.max(1) as f32,
            Share::Token => 1.0,
            Share::LongestToken => 1.0 / longest.max(1) as f32,
        };
        let weights = lengths.iter().flat_map(|&length| std::iter::repeat_n(of_answer(length), length)).collect();
        let terms = match self {
            Share::Answer | Share::LongestToken => lengths.len(),
            Share::BatchToken => 1,
            Share::Token => tokens,
        };
        (weights, terms)
    }
}

/// A way of learning from advantages.
pub struct PolicyLoss {
    /// What it is called.
    pub name: &'static str,
    /// Its source.
    pub about: &'static str,
    /// What its tokens are weighed by.
    pub share: Share,
    /// Of each token: by its ratio policy / old, its advantage, its log-probability, and the clip.
    pub of: fn(&Tensor, &Tensor, &Tensor, Clip) -> Tensor,
}

/// Those of GRPO; PPO's is the first.
pub static POLICY_LOSSES: [PolicyLoss; 5] = [
    PolicyLoss {
        name: "dapo",
        about: "each token alike: Yu et al. 2025, arXiv:2503.14476",
        share: Share::Token,
        of: |ratio, advantages, _, clip| clipped(ratio, advantages, clip),
    },
    PolicyLoss {
        name: "grpo",
        about: "each answer alike: Shao et al. 2024, arXiv:2402.03300",
        share: Share::Answer,
        of: |ratio, advantages, _, clip| clipped(ratio, advantages, clip),
    },
    PolicyLoss {
        name: "dr_grpo",
        about: "each token alike, over a length that is the same for all: Liu et al. 2025, arXiv:2503.20783",
        share: Share::LongestToken,
        of: |ratio, advantages, _, clip| clipped(ratio, advantages, clip),
    },
    PolicyLoss {
        name: "bnpo",
        about: "each token of a batch alike: Xiao et al. 2025, arXiv:2506.02864",
        share: Share::BatchToken,
        of: |ratio, advantages, _, clip| clipped(ratio, advantages, clip),
    },
    PolicyLoss {
        name: "cispo",
        about: "the gradient of every token, by a ratio that is clipped from above: MiniMax 2025, arXiv:2506.13585",
        share: Share::Token,
        of: |ratio, advantages, log_probs, clip| {
            let ratio = ops::minimum(&ratio.detach(), &ops::full(ratio.device(), 1.0 + clip.high, [1]));
            ops::neg(&ops::mul(&ops::mul(&ratio, advantages), log_probs))
        },
    },
];

/// max(-A rho, -A clip(rho)), token by token. PPO: Schulman et al. 2017, arXiv:1707.06347.
pub fn clipped(ratio: &Tensor, advantages: &Tensor, clip: Clip) -> Tensor {
    let loss = |ratio: &Tensor| ops::neg(&ops::mul(advantages, ratio));
    let pessimistic = ops::maximum(&loss(ratio), &loss(&clamp(ratio, 1.0 - clip.low, 1.0 + clip.high)));
    match clip.dual {
        0.0 => pessimistic,
        // Where the advantage is above 0 the loss is below this anyway.
        most => ops::minimum(&pessimistic, &ops::scale(&ops::abs(advantages), most)),
    }
}

/// Ratios policy / old [N]: of each token, or of the `whole` answer that it is of, by the mean of its tokens' log-ratios (GSPO: Zheng
/// et al. 2025, arXiv:2507.18071).
pub fn ratios(log_probs: &Tensor, old: &Tensor, whole: Option<&Answers>) -> Tensor {
    let log_ratios = ops::sub(log_probs, old);
    match whole {
        None => ops::exp(&log_ratios),
        Some(answers) => answers.spread(&ops::exp(&answers.means(&log_ratios))),
    }
}

/// 1 where a ratio is past the clip to the side that its advantage pulls it, else 0: where no gradient is left.
pub fn is_clipped(ratio: &Tensor, advantages: &Tensor, clip: Clip) -> Tensor {
    let bound = |value| ops::full(ratio.device(), value, [1]);
    let zero = bound(0.0);
    let above = ops::mul(&ops::greater(ratio, &bound(1.0 + clip.high)), &ops::greater(advantages, &zero));
    let below = ops::mul(&ops::greater(&bound(1.0 - clip.low), ratio), &ops::greater(&zero, advantages));
    ops::add(&above, &below)
}

/// What a policy learns from advantages by.
#[derive(Clone, Copy)]
pub struct Objective {
    /// Which loss.
    pub loss: &'static PolicyLoss,
    /// How far an update may take it.
    pub clip: Clip,
    /// Whether ratios are those of whole answers.
    pub whole: bool,
    /// What the distance from the reference weighs beside it, by [`Estimator::K3`]; 0 is nothing.
    pub beta: f32,
    /// Whether that distance is weighed by the ratios, as those of another policy's tokens are to be (DeepSeek-V3.2 2025,
    /// arXiv:2512.02556, section 3.1).
    pub corrects: bool,
}

/// What an objective comes to, token by token [N].
pub struct Terms {
    /// What is made less.
    pub losses: Tensor,
    /// policy / old.
    pub ratios: Tensor,
    /// [`is_clipped`].
    pub clipped: Tensor,
    /// How far the reference is, where there is one.
    pub kl: Option<Tensor>,
}

impl Objective {
    /// Of the tokens' log-probabilities now, as they were drawn, and by the reference, and of their advantages.
    pub fn of(
        &self,
        answers: &Answers,
        log_probs: &Tensor,
        old: &Tensor,
        reference: Option<&Tensor>,
        advantages: &Tensor,
    ) -> Terms {
        let ratios = ratios(log_probs, old, self.whole.then_some(answers));
        let losses = (self.loss.of)(&ratios, advantages, log_probs, self.clip);
        let kl = reference.map(|reference| {
            let kl = Estimator::K3.of(log_probs, reference);
            if self.corrects { ops::mul(&kl, &ratios) } else { kl }
        });
        let losses = match &kl {
            Some(kl) if self.beta > 0.0 => ops::add(&losses, &ops::scale(kl, self.beta)),
            _ => losses,
        };
        let clipped = is_clipped(&ratios.detach(), advantages, self.clip);
        Terms { losses, clipped, kl: kl.map(|kl| kl.detach()), ratios: ratios.detach() }
    }
}

/// Half the larger of (v - R)^2 and (v' - R)^2, v' the value held within `range` of the old one, token by token; a range of 0 holds
/// nothing.
pub fn value(values: &Tensor, old: &Tensor, returns: &Tensor, range: f32) -> Tensor {
    let error = |values: &Tensor| ops::square(&ops::sub(values, returns));
    let worst = match range {
        0.0 => error(values),
        _ => ops::maximum(&error(values), &error(&ops::add(old, &clamp(&ops::sub(values, old), -range, range)))),
    };
    ops::scale(&worst, 0.5)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
