//! How the next token is drawn of its logits.

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

/// A token that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// It.
    pub token: u32,
    /// ln of its probability among those that could be drawn; 0 where the most likely one was taken.
    pub log_prob: f32,
}

/// Draws a token: penalty, temperature, top-k, top-p, in this order; `uniform` in [0, 1) decides.
pub fn sample(logits: &mut [f32], history: &[u32], sampling: &Sampling, uniform: f32) -> Drawn {
    penalise(logits, history, sampling.repetition_penalty);
    let by_likelihood = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
    if sampling.temperature <= 0.0 {
        let token = (0..logits.len() as u32).min_by(by_likelihood).expect("a vocabulary has tokens");
        return Drawn { token, log_prob: 0.0 };
    }
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    if sampling.top_k > 0 && sampling.top_k < tokens.len() {
        tokens.select_nth_unstable_by(sampling.top_k - 1, by_likelihood);
        tokens.truncate(sampling.top_k);
    }
    let largest = tokens.iter().fold(f32::MIN, |most, &token| most.max(logits[token as usize]));
    let weight = |token: u32| f64::from((logits[token as usize] - largest) / sampling.temperature).exp();
    let total: f64 = tokens.iter().map(|&token| weight(token)).sum();
    // The first are put in order as far as they are looked at: to sort a vocabulary takes as long as a small model's pass.
    let (count, mut sorted) = (tokens.len(), 0);
    let mut likely = |place: usize| {
        if place >= sorted {
            let end = (2 * sorted).max(64).min(count);
            if end < count {
                tokens[sorted..].select_nth_unstable_by(end - sorted - 1, by_likelihood);
            }
            tokens[sorted..end].sort_unstable_by(by_likelihood);
            sorted = end;
        }
        tokens[place]
    };
    let (mut kept, mut kept_weight) = (count, total);
    if sampling.top_p < 1.0 {
        (kept, kept_weight) = (0, 0.0);
        while kept < count && (kept == 0 || kept_weight < f64::from(sampling.top_p) * total) {
            kept_weight += weight(likely(kept));
            kept += 1;
        }
    }
    let mut left = f64::from(uniform) * kept_weight;
    let mut place = 0;
    loop {
        let token = likely(place);
        left -= weight(token);
        if left < 0.0 || place + 1 == kept {
            return Drawn { token, log_prob: (weight(token) / kept_weight).ln() as f32 };
        }
        place += 1;
    }
}

fn penalise(logits: &mut [f32], history: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let seen: std::collections::BTreeSet<u32> = history.iter().copied().collect();
    for token in seen {
        // There are no logits of virtual tokens.
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, -1.0];

    fn draw(sampling: &Sampling, uniform: f32) -> u32 {
        sample(&mut LOGITS.clone(), &[1], sampling, uniform).token
    }

    #[test]
    fn greedy_takes_the_first_of_the_most_likely() {
        assert_eq!(draw(&Sampling::default(), 0.9), 1);
        assert_eq!(sample(&mut [2.0, 2.0], &[], &Sampling::default(), 0.9), Drawn { token: 0, log_prob: 0.0 });
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
    fn a_drawn_tokens_probability_is_among_those_that_could_be() {
        let drawn = |sampling: &Sampling| sample(&mut LOGITS.clone(), &[], sampling, 0.99);
        let of = |temperature: f64, kept: &[usize], token: usize| {
            let weights = kept.iter().map(|&token| (f64::from(LOGITS[token]) / temperature).exp());
            f64::from(LOGITS[token]) / temperature - weights.sum::<f64>().ln()
        };
        let hot = Sampling { temperature: 2.0, ..Sampling::default() };
        for (sampling, kept) in [
            (Sampling { top_k: 2, ..hot.clone() }, &[1, 2][..]),
            (Sampling { top_p: 0.7, ..hot.clone() }, &[1, 2]),
            (hot, &[0, 1, 2, 3]),
        ] {
            let Drawn { token, log_prob } = drawn(&sampling);
            // One rounding to f32 of a number below 8.
            assert!((f64::from(log_prob) - of(2.0, kept, token as usize)).abs() < 1e-6, "{sampling:?}: {token} {log_prob}");
        }
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
