//! What a critic says tokens are worth.

use wgtune_engine::{Tensor, ops};

use super::advantage::moments;
use super::phase::Plays;
use super::player::Player;
use crate::error::Result;
use crate::peft::Tuned;
use crate::train::answers::Answers;
use crate::train::pass::{self, Lesson};

/// What says what a token is worth.
pub enum Critic {
    /// A vector [1, H] on the policy's own hidden states.
    Shared(Tensor, f64),
    /// A model of its own that gives scores, and what its learning rate is multiplied by.
    Own(Box<Tuned>, f64),
}

impl Critic {
    /// What is trained, by name, and what its learning rate is multiplied by.
    pub fn parameters(&self) -> Vec<(String, &Tensor, f64)> {
        match self {
            Critic::Shared(head, rate) => vec![("critic.score.weight".into(), head, *rate)],
            Critic::Own(model, rate) => {
                model.parameters().into_iter().map(|(name, tensor)| (format!("critic.{name}"), tensor, *rate)).collect()
            }
        }
    }

    /// The values of the answers of a phase, before anything is learnt from them.
    ///
    /// # Errors
    /// A device that failed.
    pub fn measured(&self, player: &Player, policy: &Tuned, phase: usize, answers: &[(usize, &[u32])]) -> Result<Vec<Vec<f32>>> {
        match self {
            Critic::Shared(head, _) => player.measured(policy, phase, answers, |_, answers, hidden| {
                ops::linear(&answers.hidden(hidden), &head.detach()).reshape([answers.tokens.len()])
            }),
            Critic::Own(critic, _) => player.measured(critic, phase, answers, |decoder, answers, hidden| {
                decoder.logits(&answers.hidden(hidden)).reshape([answers.tokens.len()])
            }),
        }
    }

    /// The values [N] of tokens, by the policy's hidden states or its own.
    pub fn values(&self, player: &Player, plays: &Plays, answers: &Answers, hidden: &Tensor, checkpoint_blocks: bool) -> Tensor {
        let values = match self {
            Critic::Shared(head, _) => ops::linear(&answers.hidden(hidden), head),
            Critic::Own(model, _) => {
                let opened = player.read_by(model, plays);
                let own =
                    pass::hidden(&model.decoder, &[(opened.rows(), model.method.tuning(None))], checkpoint_blocks).remove(0);
                model.decoder.logits(&Answers::of(&opened).hidden(&own))
            }
        };
        values.reshape([answers.tokens.len()])
    }
}

/// 1 - var(returns - values) / var(returns): 1 is a critic that knows, 0 one that says the mean; 0 where nothing varies.
pub fn explained_variance(values: &[f64], returns: &[f64]) -> f64 {
    let errors: Vec<f64> = values.iter().zip(returns).map(|(value, of)| of - value).collect();
    let (of_errors, of_returns) = (moments(&errors).1.powi(2), moments(returns).1.powi(2));
    if of_returns > 0.0 { 1.0 - of_errors / of_returns } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_critic_that_knows_explains_all() {
        assert_eq!(explained_variance(&[1.0, 2.0], &[1.0, 2.0]), 1.0);
        assert_eq!(explained_variance(&[1.5, 1.5], &[1.0, 2.0]), 0.0);
        assert_eq!(explained_variance(&[1.0, 2.0], &[3.0, 3.0]), 0.0);
    }
}
