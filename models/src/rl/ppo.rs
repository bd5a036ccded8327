//! Proximal policy optimisation with a critic, which learns what each token is worth. Schulman et al. 2017, arXiv:1707.06347; of
//! language models: Stiennon et al. 2020, arXiv:2009.01325.

use std::time::Instant;

use serde_json::{Value, json};
use wgtune_engine::{Tensor, ops};

use super::advantage::{Discount, whiten};
use super::critic::{Critic, explained_variance};
use super::loss::Estimator;
use super::phase::{Numbers, PerToken, Phase, Played, Plays, figures_of};
use super::player::{Answered, Player};
use super::policy::{self, Clip, Objective, POLICY_LOSSES, Share};
use super::shaping::{KlCost, Shaping};
use crate::data::prompts::Prompt;
use crate::error::Result;
use crate::peft::Tuned;
use crate::train::answers::Answers;
use crate::train::metrics::{Evaluation, Figures, Metrics, figures as figures_by_name};
use crate::train::recipe::{Loss, OnBatch, Recipe};
use crate::transformer::Decoder;

/// The recipe.
pub struct Ppo {
    /// Asks, draws and judges.
    pub player: Player,
    /// What the policy is not to leave.
    pub reference: Tuned,
    /// What says what tokens are worth.
    pub critic: Critic,
    /// How far the reference is.
    pub estimator: Estimator,
    /// What that distance costs.
    pub kl: KlCost,
    /// Of rewards and advantages.
    pub discount: Discount,
    /// How far an update may take the policy.
    pub clip: Clip,
    /// How far one may take a value; 0 is any.
    pub value_clip: f32,
    /// What the critic's loss weighs.
    pub value_weight: f32,
    /// What the policy's entropy earns.
    pub entropy_weight: f32,
    /// What is done to scores before they are rewards.
    pub shaping: Shaping,
    /// Updates in which the critic learns alone.
    pub warmup: usize,
    /// Recompute each block of the critic's own model in the backward pass.
    pub checkpoint_blocks: bool,
    /// A phase is over once the policy is so far from what it was, by half the mean square of log-ratios; 0 is never.
    pub target_kl: f64,
}

impl Recipe for Ppo {
    type Batch = Plays;

    fn batch(&self, index: usize) -> Plays {
        self.player.batch(index, |lengths| Share::Token.of(lengths, 1))
    }

    fn batches_per_epoch(&self) -> usize {
        self.player.batches_per_epoch()
    }

    fn has_dropout(&self) -> bool {
        false
    }

    fn parameters(&self) -> Vec<(String, &Tensor, f64)> {
        self.critic.parameters()
    }

    fn prepare(&mut self, model: &Tuned, step: usize, on_answer: &mut OnBatch) -> Result<()> {
        let Some(number) = self.player.due(step) else { return Ok(()) };
        let begun = Instant::now();
        let (player, asked) = (&self.player, self.player.asked(number));
        let prompts: Vec<&Prompt> = asked.iter().map(|&prompt| &player.prompts[prompt]).collect();
        let Answered { rollouts, rewards, figures, seconds, .. } =
            player.play(model, &prompts, player.each, number as u64, on_answer)?;

        let answers: Vec<(usize, &[u32])> = rollouts.iter().map(|rollout| (asked[rollout.prompt], &rollout.ids[..])).collect();
        let temperature = player.sampler.sampling.temperature;
        let log_probs =
            |decoder: &Decoder, answers: &Answers, hidden: &Tensor| answers.log_probs(decoder, hidden, temperature).log_probs;
        let old = player.measured(model, number, &answers, log_probs)?;
        let reference = player.measured(&self.reference, number, &answers, log_probs)?;
        let values = self.critic.measured(player, model, number, &answers)?;

        // A token's reward is what it cost to leave the reference there; the score stands on the last.
        let device = model.decoder.device();
        let (flat_old, flat_reference) = (old.concat(), reference.concat());
        let of_tokens = |numbers: &[f32]| device.tensor(numbers, [numbers.len()]);
        let kl = self.estimator.of(&of_tokens(&flat_old), &of_tokens(&flat_reference)).to_vec()?;
        let mut by_token: Vec<f64> = kl.iter().map(|kl| -self.kl.coefficient * f64::from(*kl)).collect();
        let non_score: f64 = by_token.iter().sum();
        let mut last = 0;
        for (rollout, reward) in rollouts.iter().zip(&rewards) {
            last += rollout.ids.len();
            by_token[last - 1] += self.shaping.of(*reward, rollout.has_ended);
        }
        let rlhf_reward: f64 = by_token.iter().sum();
        if self.shaping.whitens {
            whiten(&mut by_token, false);
        }

        let (mut advantages, mut returns, mut left) = (Vec::new(), Vec::new(), &by_token[..]);
        for values in &values {
            let (own, rest) = left.split_at(values.len());
            let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            let (of_policy, of_critic) = self.discount.of(own, &values);
            advantages.extend(of_policy);
            returns.extend(of_critic);
            left = rest;
        }
        let flat_values: Vec<f64> = values.iter().flatten().map(|&value| f64::from(value)).collect();
        let explained = explained_variance(&flat_values, &returns);
        whiten(&mut advantages, true);

        let count = rollouts.len() as f64;
        let mean_kl = kl.iter().map(|&kl| f64::from(kl)).sum::<f64>() / count;
        let mut told = figures_of(&rollouts, &rewards);
        told.extend(figures);
        told.extend(figures_by_name([
            ("objective/kl", mean_kl),
            ("objective/non_score_reward", non_score / count),
            ("objective/rlhf_reward", rlhf_reward / count),
            ("kl_coef", self.kl.coefficient),
            ("val/explained_variance", explained),
        ]));
        let (mut advantages, mut returns) = (advantages.into_iter(), returns.into_iter());
        let mut all = Vec::with_capacity(rollouts.len());
        for (((rollout, old), reference), values) in rollouts.iter().zip(old).zip(reference).zip(values) {
            let next = |numbers: &mut dyn Iterator<Item = f64>| {
                Numbers(numbers.take(rollout.ids.len()).map(|number| number as f32).collect())
            };
            all.push(Played {
                prompt: asked[rollout.prompt],
                answer: rollout.ids.clone(),
                counts: true,
                tokens: PerToken {
                    sampled: Numbers(rollout.log_probs.clone()),
                    old: Numbers(old),
                    reference: Numbers(reference),
                    advantages: next(&mut advantages),
                    returns: next(&mut returns),
                    values: Numbers(values),
                },
            });
        }
        self.kl = self.kl.after(mean_kl, rollouts.len());
        self.player.seconds = Some([seconds, begun.elapsed().as_secs_f64() - seconds]);
        self.player.phase = Some(Phase { number, first: step, is_over: false, all, told });
        Ok(())
    }

    fn heed(&mut self, metrics: &Metrics) {
        let is_far = self.target_kl > 0.0 && metrics.figures.get(APPROX_KL).is_some_and(|kl| *kl > self.target_kl);
        if let Some(phase) = self.player.phase.as_mut().filter(|_| is_far) {
            phase.is_over = true;
        }
    }

    fn told(&self, step: usize) -> Figures {
        self.player.told(step)
    }

    fn state(&self) -> Option<Value> {
        Some(json!({"phase": self.player.state(), "kl_coefficient": self.kl.coefficient.to_bits()}))
    }

    fn restore(&mut self, mut state: Value) -> std::result::Result<(), String> {
        let bits = state["kl_coefficient"].as_u64().ok_or("no `kl_coefficient`")?;
        self.kl.coefficient = f64::from_bits(bits);
        self.player.restore(state["phase"].take())
    }

    fn loss(&self, decoder: &Decoder, plays: &Plays, hidden: &Tensor) -> Loss {
        let (answers, device) = (Answers::of(&plays.answers), decoder.device());
        let of_tokens = |numbers: &[f32]| device.tensor(numbers, [numbers.len()]);
        let found = answers.log_probs(decoder, hidden, self.player.sampler.sampling.temperature);
        let PerToken { sampled, old, advantages, values: before, returns, .. } = &plays.tokens;
        let (old, advantages) = (of_tokens(&old.0), of_tokens(&advantages.0));
        let objective = Objective { loss: &POLICY_LOSSES[0], clip: self.clip, whole: false, beta: 0.0, corrects: false };
        let terms = objective.of(&answers, &found.log_probs, &old, None, &advantages);
        // While the critic learns alone, nothing of the policy moves.
        let is_alone = plays.update < self.warmup;
        let seen = if is_alone { hidden.detach() } else { hidden.clone() };
        let values = self.critic.values(&self.player, plays, &answers, &seen, self.checkpoint_blocks);
        let value_losses = policy::value(&values, &of_tokens(&before.0), &of_tokens(&returns.0), self.value_clip);
        let weight = if is_alone { 0.0 } else { 1.0 };
        let policy_losses = ops::sub(&terms.losses, &ops::scale(&found.entropy, self.entropy_weight));
        let losses = ops::add(&ops::scale(&policy_losses, weight), &ops::scale(&value_losses, self.value_weight));
        let log_ratios = ops::sub(&found.log_probs.detach(), &old);
        let figures = vec![
            ("entropy", ops::sum(&found.entropy.detach())),
            ("val/ratio", ops::sum(&terms.ratios)),
            ("policy/clipfrac_avg", ops::sum(&terms.clipped)),
            (APPROX_KL, ops::scale(&ops::sum(&ops::square(&log_ratios)), 0.5)),
            ("loss/policy_avg", ops::sum(&terms.losses.detach())),
            ("loss/value_avg", ops::sum(&value_losses.detach())),
            ("sampling/logp_difference", ops::sum(&ops::abs(&ops::sub(&old, &of_tokens(&sampled.0))))),
        ];
        Loss { sum: ops::sum(&losses), figures }
    }

    fn validate(&self, model: &Tuned, on_answer: &mut OnBatch) -> Result<Option<Evaluation>> {
        self.player.evaluate(model, on_answer)
    }
}

/// How far the policy is from what it was when the answers were drawn.
const APPROX_KL: &str = "policy/approxkl_avg";
