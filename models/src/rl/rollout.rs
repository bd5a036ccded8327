//! What a policy says to prompts, and what that is worth.

use std::borrow::Cow;
use std::ops::ControlFlow;

use wgtune_engine::random::Philox;

use crate::data::prompts::Prompt;
use crate::error::{Error, Result};
use crate::formats::tokenizer::Tokenizer;
use crate::generate::{Generated, Listener, Request, Sampling, generate};
use crate::peft::Tuned;
use crate::train::metrics::Figures;
use crate::train::recipe::OnBatch;

/// How answers are drawn.
pub struct Sampler {
    /// Temperature, top-k and top-p; the seed is each answer's own.
    pub sampling: Sampling,
    /// Tokens of the longest answer.
    pub max_new_tokens: usize,
    /// Tokens that end one.
    pub ends: Vec<u32>,
    /// How many are drawn together.
    pub batch: usize,
}

/// An answer that a policy gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Which of the prompts it answers.
    pub prompt: usize,
    /// Its tokens, the one that ends it included.
    pub ids: Vec<u32>,
    /// How likely each was when it was drawn.
    pub log_probs: Vec<f32>,
    /// Whether it ended, and was not cut at the length.
    pub has_ended: bool,
}

impl Sampler {
    /// So many answers to `each` prompt, those of one prompt behind each other. What is random depends on `random` alone.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where `on_answer` breaks; as [`generate`].
    pub fn answers(
        &self,
        model: &Tuned,
        prompts: &[&Prompt],
        each: usize,
        random: Philox,
        on_answer: &mut OnBatch,
    ) -> Result<Vec<Rollout>> {
        let model = model.detach();
        let count = prompts.len() * each;
        let mut requests = (0..count).map(|at| {
            let [high, low] = [0, 1].map(|word| u64::from(random.stream(at as u64).word(word)));
            Request {
                model: 0,
                prompt: prompts[at / each].ids.clone(),
                max_new_tokens: self.max_new_tokens,
                ends: self.ends.clone(),
                sampling: Sampling { seed: high << 32 | low, ..self.sampling.clone() },
            }
        });
        let mut heard = Heard { ended: 0, count, on_answer };
        let generated = generate(&[model], self.batch, &mut requests, &mut heard)?;
        let rollout = |(at, Generated { ids, end, log_probs, .. }): (usize, Generated)| Rollout {
            prompt: at / each,
            ids: ids.into_iter().chain(end).collect(),
            log_probs,
            has_ended: end.is_some(),
        };
        Ok(generated.into_iter().enumerate().map(rollout).collect())
    }
}

/// Passes on how many have ended.
struct Heard<'a, 'b> {
    ended: usize,
    count: usize,
    on_answer: &'a mut OnBatch<'b>,
}

impl Listener for Heard<'_, '_> {
    fn end(&mut self, _: usize, _: &Generated) -> Result<()> {
        self.ended += 1;
        match (self.on_answer)(self.ended, self.count) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }
}

/// An answer as it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The answer's text.
    pub text: &'a str,
    /// Its tokens.
    pub ids: &'a [u32],
    /// Whether it ended, and was not cut at the length.
    pub has_ended: bool,
}

/// What says how good answers are.
pub trait Scorer {
    /// The name of its mean among a run's figures.
    fn name(&self) -> &'static str;

    /// The score of each answer.
    ///
    /// # Errors
    /// A device that failed, or what it asks is not there, or answers what is no score.
    fn score(&mut self, said: &[Said]) -> Result<Vec<f64>>;
}

/// Scorers, and what each weighs.
#[derive(Default)]
pub struct Rewards(pub Vec<(f64, Box<dyn Scorer>)>);

impl Rewards {
    /// The weighted sum of the scores of each answer, and the mean of each scorer's own.
    ///
    /// # Errors
    /// As [`Scorer::score`]; a score that is not finite.
    pub fn of(&mut self, said: &[Said]) -> Result<(Vec<f64>, Figures)> {
        let (mut sums, mut means) = (vec![0.0; said.len()], Figures::new());
        for (weight, scorer) in &mut self.0 {
            let scores = scorer.score(said)?;
            // Those of a kind are numbered.
            let kind = scorer.name();
            let alike = means.keys().filter(|name| *name == kind || name.starts_with(&format!("{kind}_"))).count();
            let name: Cow<str> = if alike == 0 { kind.into() } else { format!("{kind}_{}", alike + 1).into() };
            if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
                return Err(Error::Data { message: format!("{name}: a score of {score}; expected a finite number") });
            }
            sums.iter_mut().zip(&scores).for_each(|(sum, score)| *sum += *weight * score);
            means.insert(name, scores.iter().sum::<f64>() / scores.len().max(1) as f64);
        }
        Ok((sums, means))
    }
}

/// The texts of answers, as they go on behind their prompts.
///
/// # Errors
/// Tokens that the tokenizer does not know.
pub fn texts(tokenizer: &Tokenizer, vocabulary: usize, prompts: &[&Prompt], rollouts: &[Rollout]) -> Result<Vec<String>> {
    let text = |rollout: &Rollout| {
        // Virtual tokens have no text. The prompt is decoded with the answer, so that this begins as it does within a text.
        let prompt: Vec<u32> = prompts[rollout.prompt].ids.iter().copied().filter(|id| (*id as usize) < vocabulary).collect();
        let before = tokenizer.decode(&prompt, true)?;
        let mut all = tokenizer.decode(&[prompt.as_slice(), &rollout.ids].concat(), true)?;
        Ok(all.split_off(all.floor_char_boundary(before.len().min(all.len()))))
    };
    rollouts.iter().map(text).collect()
}
