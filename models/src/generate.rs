//! Text out: sampling token by token with the key-value cache.

use std::time::{Duration, Instant};

use wgtune_engine::random::Philox;

use crate::error::{Error, Result};
use crate::nn::Tuning;
use crate::transformer::{Cache, Decoder, Input};

/// How the next token is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Only the k most likely tokens; 0 is all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability (Holtzman et al. 2019, arXiv:1904.09751); 1 is all.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens that were seen (Keskar et al. 2019, arXiv:1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// The same seed draws the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A token that ends a text, or what the caller waited for.
    Stop,
    /// As many tokens as were asked for.
    Length,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The new tokens, without the one that ended the text.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Time for the prompt and the first token.
    pub prefill: Duration,
    /// Time for all further tokens.
    pub decode: Duration,
}

impl Generated {
    /// Tokens a second after the first; 0 where there is none.
    pub fn tokens_per_second(&self) -> f64 {
        let further = self.ids.len().saturating_sub(1) as f64;
        if further > 0.0 { further / self.decode.as_secs_f64() } else { 0.0 }
    }
}

/// Continues `prompt` by at most `max_new_tokens` tokens, until one of `ends`. Every token goes to `on_token` as it comes;
/// generation stops where that returns `false`, and the token counts.
///
/// # Errors
/// An empty prompt, a token outside the vocabulary, logits that are not finite, and whatever the device meets.
pub fn generate(
    decoder: &Decoder,
    tuning: &dyn Tuning,
    prompt: &[u32],
    max_new_tokens: usize,
    ends: &[u32],
    sampling: &Sampling,
    on_token: &mut dyn FnMut(u32) -> Result<bool>,
) -> Result<Generated> {
    check_prompt(decoder, prompt)?;
    let random = Philox::new(sampling.seed).stream(0x67656e);
    let mut cache = Cache::new(decoder.blueprint(), decoder.device(), 1, prompt.len() + max_new_tokens);
    let mut history = prompt.to_vec();
    let mut generated =
        Generated { ids: Vec::new(), finish_reason: FinishReason::Length, prefill: Duration::ZERO, decode: Duration::ZERO };
    let mut begun = Instant::now();
    for step in 0..max_new_tokens {
        let mut logits = next_logits(decoder, tuning, &history[cache.length()..], &mut cache)?;
        let token = sample(&mut logits, &history, sampling, random.uniform(step as u64));
        let elapsed = begun.elapsed();
        if step == 0 {
            generated.prefill = elapsed
        } else {
            generated.decode += elapsed
        }
        begun = Instant::now();
        if ends.contains(&token) {
            generated.finish_reason = FinishReason::Stop;
            break;
        }
        generated.ids.push(token);
        history.push(token);
        if !on_token(token)? {
            generated.finish_reason = FinishReason::Stop;
            break;
        }
    }
    Ok(generated)
}

/// Checks that a prompt has tokens, all of the vocabulary.
///
/// # Errors
/// [`Error::Data`] naming the token.
pub fn check_prompt(decoder: &Decoder, prompt: &[u32]) -> Result<()> {
    let vocabulary = decoder.blueprint().vocab_size;
    if prompt.is_empty() {
        return Err(Error::Data { message: "the prompt is empty: expected at least one token".into() });
    }
    match prompt.iter().find(|id| **id as usize >= vocabulary) {
        Some(id) => Err(Error::Data { message: format!("token id {id} of the prompt: expected ids below {vocabulary}") }),
        None => Ok(()),
    }
}

/// The logits after the last of `ids`, which follow what the cache holds.
fn next_logits(decoder: &Decoder, tuning: &dyn Tuning, ids: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
    let input = Input::row(decoder.device(), ids, cache.length());
    let hidden = decoder.hidden_cached(&input, tuning, cache);
    check_finite(decoder.logits(&hidden.slice(1, ids.len() - 1..ids.len())).to_vec()?)
}

/// The same logits.
///
/// # Errors
/// [`Error::Data`] if one is not finite.
pub fn check_finite(logits: Vec<f32>) -> Result<Vec<f32>> {
    match logits.iter().find(|logit| !logit.is_finite()) {
        Some(logit) => {
            let message = format!("a logit is {logit}; expected a finite number: look at the weights of model and adapter");
            Err(Error::Data { message })
        }
        None => Ok(logits),
    }
}

/// Draws a token: penalty, temperature, top-k, top-p, in this order; `uniform` in [0, 1) decides.
pub fn sample(logits: &mut [f32], history: &[u32], sampling: &Sampling, uniform: f32) -> u32 {
    penalise(logits, history, sampling.repetition_penalty);
    let by_likelihood = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
    if sampling.temperature <= 0.0 {
        return (0..logits.len() as u32).min_by(by_likelihood).expect("a vocabulary has tokens");
    }
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    if sampling.top_k > 0 && sampling.top_k < tokens.len() {
        tokens.select_nth_unstable_by(sampling.top_k - 1, by_likelihood);
        tokens.truncate(sampling.top_k);
    }
    tokens.sort_unstable_by(by_likelihood);
    let largest = logits[tokens[0] as usize];
    let weight = |token: u32| f64::from((logits[token as usize] - largest) / sampling.temperature).exp();
    let total: f64 = tokens.iter().map(|&token| weight(token)).sum();
    if sampling.top_p < 1.0 {
        let mut reached = 0.0;
        let kept = tokens.iter().take_while(|&&token| {
            let short = reached < f64::from(sampling.top_p) * total;
            reached += weight(token);
            short
        });
        let kept = kept.count().max(1);
        tokens.truncate(kept);
    }
    let total: f64 = tokens.iter().map(|&token| weight(token)).sum();
    let mut left = f64::from(uniform) * total;
    for &token in &tokens {
        left -= weight(token);
        if left < 0.0 {
            return token;
        }
    }
    tokens[tokens.len() - 1]
}

fn penalise(logits: &mut [f32], history: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let seen: std::collections::BTreeSet<u32> = history.iter().copied().collect();
    for token in seen {
        let logit = &mut logits[token as usize];
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, -1.0];

    fn draw(sampling: &Sampling, uniform: f32) -> u32 {
        sample(&mut LOGITS.clone(), &[1], sampling, uniform)
    }

    #[test]
    fn greedy_takes_the_first_of_the_most_likely() {
        assert_eq!(draw(&Sampling::default(), 0.9), 1);
        assert_eq!(sample(&mut [2.0, 2.0], &[], &Sampling::default(), 0.9), 0);
    }

    #[test]
    fn top_k_and_top_p_leave_only_what_they_say() {
        let all = Sampling { temperature: 1.0, ..Sampling::default() };
        let drawn = |sampling: &Sampling| {
            let mut tokens: Vec<u32> = (0..1000).map(|i| draw(sampling, i as f32 / 1000.0)).collect();
            tokens.sort_unstable();
            tokens.dedup();
            tokens
        };
        assert_eq!(drawn(&all), [0, 1, 2, 3]);
        assert_eq!(drawn(&Sampling { top_k: 2, ..all.clone() }), [1, 2]);
        // e^3 : e^2 : e^1 : e^-1 are 0.66, 0.24, 0.09 and 0.01 of their sum.
        assert_eq!(drawn(&Sampling { top_p: 0.6, ..all.clone() }), [1]);
        assert_eq!(drawn(&Sampling { top_p: 0.7, ..all }), [1, 2]);
    }

    #[test]
    fn probabilities_follow_the_softmax() {
        let sampling = Sampling { temperature: 2.0, ..Sampling::default() };
        let ones = (0..10_000).filter(|i| draw(&sampling, *i as f32 / 1e4) == 1).count() as f64;
        let weights: Vec<f64> = LOGITS.iter().map(|l| (f64::from(*l) / 2.0).exp()).collect();
        // Uniforms on a grid of 1e-4 give the probability within one step of it.
        assert!((ones / 1e4 - weights[1] / weights.iter().sum::<f64>()).abs() < 2e-4);
    }

    #[test]
    fn a_penalty_makes_seen_tokens_less_likely_whatever_their_sign() {
        let mut logits = [2.0, -2.0, 1.0];
        penalise(&mut logits, &[0, 1, 1], 2.0);
        assert_eq!(logits, [1.0, -4.0, 1.0]);
    }
}
