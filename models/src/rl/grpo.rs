//! Group-relative policy optimisation: a policy answers each prompt several times, and learns which of its answers are better than
//! their mean. Shao et al. 2024, arXiv:2402.03300.

use std::time::Instant;

use serde_json::Value;
use wgtune_engine::{Tensor, ops};

use super::advantage::{Spread, of_groups};
use super::phase::{Numbers, PerToken, Phase, Played, Plays, figures_of};
use super::player::{Answered, Player};
use super::policy::Objective;
use crate::data::prompts::Prompt;
use crate::error::Result;
use crate::peft::Tuned;
use crate::train::answers::Answers;
use crate::train::metrics::{Evaluation, Figures};
use crate::train::recipe::{Loss, OnBatch, Recipe};
use crate::transformer::Decoder;

/// The recipe.
pub struct Grpo {
    /// Asks, draws and judges.
    pub player: Player,
    /// What is learnt by.
    pub objective: Objective,
    /// What advantages are divided by.
    pub spread: Spread,
    /// What the policy is not to leave, where its distance weighs anything.
    pub reference: Option<Tuned>,
    /// What becomes of answers that are cut at the length.
    pub overlong: Overlong,
}

/// What becomes of answers that are too long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overlong {
    /// They are judged as they are.
    Keep,
    /// Those that are cut are not learnt from; their rewards count for their group.
    Drop,
    /// The last so many tokens before the limit cost up to a reward of 1, in a line, and one that is cut costs 1: DAPO (Yu et al. 2025,
    /// arXiv:2503.14476, section 3.4).
    Penalise(usize),
}

impl Overlong {
    /// What an answer costs.
    fn cost(self, length: usize, longest: usize, has_ended: bool) -> f64 {
        match self {
            Overlong::Penalise(_) if !has_ended => 1.0,
            Overlong::Penalise(margin) => {
                let over = (length + margin).saturating_sub(longest);
                (over as f64 / margin.max(1) as f64).min(1.0)
            }
            Overlong::Keep | Overlong::Drop => 0.0,
        }
    }
}

impl Recipe for Grpo {
    type Batch = Plays;

    fn batch(&self, index: usize) -> Plays {
        let longest = self.player.sampler.max_new_tokens;
        self.player.batch(index, |lengths| self.objective.loss.share.of(lengths, longest))
    }

    fn batches_per_epoch(&self) -> usize {
        self.player.batches_per_epoch()
    }

    fn has_dropout(&self) -> bool {
        false
    }

    fn prepare(&mut self, model: &Tuned, step: usize, on_answer: &mut OnBatch) -> Result<()> {
        let Some(number) = self.player.due(step) else { return Ok(()) };
        let begun = Instant::now();
        let (player, asked) = (&self.player, self.player.asked(number));
        let prompts: Vec<&Prompt> = asked.iter().map(|&prompt| &player.prompts[prompt]).collect();
        let Answered { rollouts, mut rewards, figures, seconds, .. } =
            player.play(model, &prompts, player.each, number as u64, on_answer)?;
        let longest = player.sampler.max_new_tokens;
        for (reward, rollout) in rewards.iter_mut().zip(&rollouts) {
            *reward -= self.overlong.cost(rollout.ids.len(), longest, rollout.has_ended);
        }
        let (advantages, flat) = of_groups(&rewards, player.each, self.spread);
        let mut told = figures_of(&rollouts, &rewards);
        told.extend(figures);
        told.insert("frac_reward_zero_std".into(), flat as f64 / asked.len() as f64);

        let answers: Vec<(usize, &[u32])> = rollouts.iter().map(|rollout| (asked[rollout.prompt], &rollout.ids[..])).collect();
        let temperature = player.sampler.sampling.temperature;
        let log_probs =
            |decoder: &Decoder, answers: &Answers, hidden: &Tensor| answers.log_probs(decoder, hidden, temperature).log_probs;
        let none = || vec![Vec::new(); answers.len()];
        // One update learns from what the policy finds now.
        let old = if player.updates_per_phase() > 1 { player.measured(model, number, &answers, log_probs)? } else { none() };
        let reference = match &self.reference {
            Some(reference) => player.measured(reference, number, &answers, log_probs)?,
            None => none(),
        };
        let all: Vec<Played> = rollouts
            .iter()
            .zip(old.into_iter().zip(reference))
            .zip(advantages)
            .map(|((rollout, (old, reference)), advantage)| Played {
                prompt: asked[rollout.prompt],
                answer: rollout.ids.clone(),
                counts: rollout.has_ended || self.overlong != Overlong::Drop,
                tokens: PerToken {
                    sampled: Numbers(rollout.log_probs.clone()),
                    old: Numbers(old),
                    reference: Numbers(reference),
                    advantages: Numbers(vec![advantage as f32; rollout.ids.len()]),
                    ..PerToken::default()
                },
            })
            .collect();
        self.player.seconds = Some([seconds, begun.elapsed().as_secs_f64() - seconds]);
        self.player.phase = Some(Phase { number, first: step, is_over: false, all, told });
        Ok(())
    }

    fn told(&self, step: usize) -> Figures {
        self.player.told(step)
    }

    fn state(&self) -> Option<Value> {
        Some(self.player.state())
    }

    fn restore(&mut self, state: Value) -> std::result::Result<(), String> {
        self.player.restore(state)
    }

    fn loss(&self, decoder: &Decoder, plays: &Plays, hidden: &Tensor) -> Loss {
        let (answers, device) = (Answers::of(&plays.answers), decoder.device());
        let of_tokens = |numbers: &[f32]| device.tensor(numbers, [numbers.len()]);
        let PerToken { sampled, old, reference, advantages, .. } = &plays.tokens;
        let found = answers.log_probs(decoder, hidden, self.player.sampler.sampling.temperature);
        let old = if old.0.is_empty() { found.log_probs.detach() } else { of_tokens(&old.0) };
        let reference = (!reference.0.is_empty()).then(|| of_tokens(&reference.0));
        let terms = self.objective.of(&answers, &found.log_probs, &old, reference.as_ref(), &of_tokens(&advantages.0));
        let weights = of_tokens(&plays.weights);
        // Figures are means over tokens, whatever these weigh in the loss.
        let counted = of_tokens(&plays.counted());
        let mean = |of_tokens: &Tensor| ops::sum(&ops::mul(of_tokens, &counted));
        let mut figures = vec![
            ("entropy", mean(&found.entropy.detach())),
            ("ratio", mean(&terms.ratios)),
            ("clip_ratio", mean(&terms.clipped)),
            ("sampling/logp_difference", mean(&ops::abs(&ops::sub(&old, &of_tokens(&sampled.0))))),
        ];
        figures.extend(terms.kl.as_ref().map(|kl| ("kl", mean(kl))));
        Loss { sum: ops::sum(&ops::mul(&terms.losses, &weights)), figures }
    }

    fn validate(&self, model: &Tuned, on_answer: &mut OnBatch) -> Result<Option<Evaluation>> {
        self.player.evaluate(model, on_answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_cost_in_a_line_up_to_one() {
        let cost = |length, has_ended| Overlong::Penalise(4).cost(length, 10, has_ended);
        assert_eq!([cost(6, true), cost(7, true), cost(10, true), cost(10, false)], [0.0, 0.25, 1.0, 1.0]);
        assert_eq!(Overlong::Keep.cost(10, 10, false), 0.0);
        assert_eq!(Overlong::Drop.cost(10, 10, false), 0.0);
    }
}
