//! What asks a policy and has its answers judged, phase by phase, and makes batches of them.

use std::cell::RefCell;
use std::time::Instant;

use serde_json::Value;
use wgtune_engine::Tensor;
use wgtune_engine::random::Philox;

use super::advantage::moments;
use super::phase::{PerToken, Phase, Played, Plays};
use super::rollout::{Rewards, Rollout, Said, Sampler, texts};
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::data::encode::Example;
use crate::data::order::Order;
use crate::data::prompts::Prompt;
use crate::error::Result;
use crate::formats::tokenizer::Tokenizer;
use crate::peft::Tuned;
use crate::train::answers::Answers;
use crate::train::metrics::{Evaluation, Figures, figures};
use crate::train::pass::{self, Lesson};
use crate::train::recipe::OnBatch;
use crate::train::samples::Sample;
use crate::transformer::Decoder;

/// What a policy is asked, and how its answers are drawn, judged and learnt from.
pub struct Player {
    /// What is asked.
    pub prompts: Vec<Prompt>,
    /// What is asked in evaluations alone.
    pub held_out: Vec<Prompt>,
    /// Prompts of a phase.
    pub at_once: usize,
    /// Whether each time that all are asked has an order of its own, or all have the data's.
    pub shuffles: bool,
    /// Answers to each.
    pub each: usize,
    /// How often a phase's answers are gone through.
    pub epochs: usize,
    /// Answers of a batch.
    pub batch_size: usize,
    /// Batches of an update.
    pub accumulate: usize,
    /// How answers are drawn.
    pub sampler: Sampler,
    /// What judges them.
    pub rewards: RefCell<Rewards>,
    /// What makes texts of them.
    pub tokenizer: Tokenizer,
    /// What padding is filled with.
    pub padding: u32,
    /// The virtual tokens that the policy's texts begin with.
    pub opening: Vec<u32>,
    /// Tokens of the vocabulary; the ids of virtual ones follow these.
    pub vocabulary: usize,
    /// What is random depends on it alone.
    pub seed: u64,
    /// The phase that the run is in.
    pub phase: Option<Phase>,
    /// How long its answers took to be drawn, and to be judged by all who were asked, where that was in this process.
    pub seconds: Option<[f64; 2]>,
}

/// Answers and what they are worth.
pub struct Answered {
    /// The answers, by the prompts that they were given for.
    pub rollouts: Vec<Rollout>,
    /// Their rewards.
    pub rewards: Vec<f64>,
    /// Their texts.
    pub texts: Vec<String>,
    /// Means of the scorers.
    pub figures: Figures,
    /// Seconds for drawing them.
    pub seconds: f64,
}

impl Player {
    /// Updates that a phase takes, unless it is over before.
    pub fn updates_per_phase(&self) -> usize {
        self.epochs * self.batches() / self.accumulate
    }

    /// Batches that all prompts take once.
    pub fn batches_per_epoch(&self) -> usize {
        self.prompts.len().div_ceil(self.at_once) * self.epochs * self.batches()
    }

    /// Batches of a phase's answers.
    fn batches(&self) -> usize {
        (self.at_once * self.each).div_ceil(self.batch_size)
    }

    /// The number of the phase that begins before this update, where one does.
    pub fn due(&self, step: usize) -> Option<usize> {
        match &self.phase {
            None => Some(0),
            Some(phase) if phase.is_over || step >= phase.first + self.updates_per_phase() => Some(phase.number + 1),
            Some(_) => None,
        }
    }

    /// The prompts of a phase, by their places among all.
    pub fn asked(&self, number: usize) -> Vec<usize> {
        let order = Order::new(self.prompts.len(), 1, self.shuffles.then_some(self.seed));
        (number * self.at_once..(number + 1) * self.at_once).map(|draw| order.batch(draw)[0]).collect()
    }

    /// The policy's answers to prompts, judged.
    ///
    /// # Errors
    /// As [`Sampler::answers`] and [`Rewards::of`].
    pub fn play(
        &self,
        model: &Tuned,
        prompts: &[&Prompt],
        each: usize,
        stream: u64,
        on_answer: &mut OnBatch,
    ) -> Result<Answered> {
        let begun = Instant::now();
        let random = Philox::new(self.seed).stream(0x726f6c6c).stream(stream);
        let rollouts = self.sampler.answers(model, prompts, each, random, on_answer)?;
        let texts = texts(&self.tokenizer, model.decoder.blueprint().vocab_size, prompts, &rollouts)?;
        let said: Vec<Said> = rollouts
            .iter()
            .zip(&texts)
            .map(|(rollout, text)| Said {
                prompt: prompts[rollout.prompt],
                text,
                ids: &rollout.ids,
                has_ended: rollout.has_ended,
            })
            .collect();
        let seconds = begun.elapsed().as_secs_f64();
        let (rewards, figures) = self.rewards.borrow_mut().of(&said)?;
        Ok(Answered { rollouts, rewards, texts, figures, seconds })
    }

    /// What `of` says of each token of the answers, by a model that goes through them in the batches that are learnt from first, so
    /// that the same model says the same then, to the bit.
    ///
    /// # Errors
    /// A device that failed.
    pub fn measured(
        &self,
        model: &Tuned,
        phase: usize,
        answers: &[(usize, &[u32])],
        of: impl Fn(&Decoder, &Answers, &Tensor) -> Tensor,
    ) -> Result<Vec<Vec<f32>>> {
        let model = model.detach();
        let order = self.order(phase, answers.len());
        let mut found: Vec<Vec<f32>> = vec![Vec::new(); answers.len()];
        for index in 0..order.batches_per_epoch() {
            let places = order.batch(index);
            let batch = self.rows(&model, &places.iter().map(|&place| answers[place]).collect::<Vec<_>>());
            let hidden = pass::hidden(&model.decoder, &[(batch.rows(), model.method.tuning(None))], false).remove(0);
            let tokens = Answers::of(&batch);
            let mut values = of(&model.decoder, &tokens, &hidden).to_vec()?.into_iter();
            for (place, length) in places.into_iter().zip(tokens.lengths) {
                found[place] = values.by_ref().take(length).collect();
            }
        }
        Ok(found)
    }

    /// What is told of an update of the phase.
    pub fn told(&self, step: usize) -> Figures {
        let Some(phase) = &self.phase else { return Figures::new() };
        let mut told = phase.told.clone();
        told.insert("phase/update".into(), (step - phase.first) as f64);
        if let Some([rollout, scoring]) = self.seconds.filter(|_| step == phase.first) {
            told.extend(figures([("time/rollout", rollout), ("time/scoring", scoring)]));
        }
        told
    }

    /// The batch of this index, counted over the whole run; `share` says what its tokens weigh, by the answers' lengths, and of how many
    /// terms the loss is then.
    ///
    /// # Panics
    /// If no phase has begun.
    pub fn batch(&self, index: usize, share: impl Fn(&[usize]) -> (Vec<f32>, usize)) -> Plays {
        let phase = self.phase.as_ref().expect("a phase begins before an update");
        let places = self.order(phase.number, phase.all.len()).batch(index - phase.first * self.accumulate);
        let played: Vec<&Played> = places.iter().map(|&place| &phase.all[place]).collect();
        let examples: Vec<Example> =
            played.iter().map(|played| self.example(!self.opening.is_empty(), played.prompt, &played.answer)).collect();
        let answers = Batch::of_rows(&examples.iter().map(|example| vec![example]).collect::<Vec<_>>(), self.padding);
        // The tokens of what does not count weigh nothing.
        let lengths: Vec<usize> = played.iter().map(|played| if played.counts { played.answer.len() } else { 0 }).collect();
        let (counted, targets) = share(&lengths);
        let mut counted = counted.into_iter();
        let weights = played.iter().flat_map(|played| -> Vec<f32> {
            match played.counts {
                true => counted.by_ref().take(played.answer.len()).collect(),
                false => vec![0.0; played.answer.len()],
            }
        });
        Plays {
            weights: weights.collect(),
            tokens: PerToken::joined(played.iter().map(|played| &played.tokens)),
            prompts: played.iter().map(|played| played.prompt).collect(),
            update: index / self.accumulate,
            targets,
            answers,
        }
    }

    /// The answers of a batch as another model reads them: with the virtual tokens that it has.
    pub fn read_by(&self, model: &Tuned, plays: &Plays) -> Batch {
        let tokens = Answers::of(&plays.answers);
        let mut left = &tokens.tokens[..];
        let mut answers = Vec::with_capacity(plays.prompts.len());
        for (&prompt, &length) in plays.prompts.iter().zip(&tokens.lengths) {
            let (own, rest) = left.split_at(length);
            answers.push((prompt, own));
            left = rest;
        }
        self.rows(model, &answers)
    }

    /// Answers behind their prompts, as this model reads them.
    fn rows(&self, model: &Tuned, answers: &[(usize, &[u32])]) -> Batch {
        let has_opening = model.method.opening() > 0;
        let examples: Vec<Example> = answers.iter().map(|(prompt, answer)| self.example(has_opening, *prompt, answer)).collect();
        Batch::of_rows(&examples.iter().map(|example| vec![example]).collect::<Vec<_>>(), self.padding)
    }

    fn example(&self, has_opening: bool, prompt: usize, answer: &[u32]) -> Example {
        let ids = &self.prompts[prompt].ids;
        let is_virtual = |id: &u32| *id as usize >= self.vocabulary;
        let before: Vec<u32> = match has_opening {
            // A template's are among the prompt's own.
            true if ids.iter().any(is_virtual) => ids.clone(),
            true => [self.opening.as_slice(), ids].concat(),
            false => ids.iter().copied().filter(|id| !is_virtual(id)).collect(),
        };
        let labels = std::iter::repeat_n(IGNORE, before.len()).chain(answer.iter().copied()).collect();
        Example { labels, ids: before.into_iter().chain(answer.iter().copied()).collect() }
    }

    fn order(&self, phase: usize, answers: usize) -> Order {
        let [high, low] = [0, 1].map(|word| u64::from(Philox::new(self.seed).stream(0x706c6179).stream(phase as u64).word(word)));
        Order::new(answers, self.batch_size, Some(high << 32 | low))
    }

    /// The mean reward of an answer to each of the prompts held out, drawn as those that are learnt from; its negative is the loss.
    ///
    /// # Errors
    /// As [`play`](Self::play).
    pub fn evaluate(&self, model: &Tuned, on_answer: &mut OnBatch) -> Result<Option<Evaluation>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let prompts: Vec<&Prompt> = self.held_out.iter().collect();
        let Answered { rollouts, rewards, texts, figures: mut told, .. } = self.play(model, &prompts, 1, u64::MAX, on_answer)?;
        let (mean, deviation) = moments(&rewards);
        let trained_tokens: usize = rollouts.iter().map(|rollout| rollout.ids.len()).sum();
        told.extend(figures([
            ("reward", mean),
            ("reward_std", deviation),
            ("completions/mean_length", trained_tokens as f64 / rollouts.len() as f64),
        ]));
        let said = prompts.iter().zip(texts).zip(rewards);
        let sample = |((prompt, text), reward): ((&&Prompt, String), f64)| Sample {
            step: 0,
            prompt: prompt.given.clone(),
            text,
            reward: Some(reward),
        };
        Ok(Some(Evaluation { loss: -mean, figures: told, trained_tokens, samples: said.map(sample).collect() }))
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> Value {
        serde_json::to_value(&self.phase).expect("plain data is JSON")
    }

    /// Goes on from such a state.
    ///
    /// # Errors
    /// A sentence, where it is none.
    pub fn restore(&mut self, state: Value) -> std::result::Result<(), String> {
        self.phase = serde_json::from_value(state).map_err(|error| format!("no phase of answers: {error}"))?;
        let count = self.prompts.len();
        match self.phase.iter().flat_map(|phase| &phase.all).find(|played| played.prompt >= count) {
            Some(played) => Err(format!("an answer to prompt {}; expected one below {count}", played.prompt)),
            None => Ok(()),
        }
    }
}
