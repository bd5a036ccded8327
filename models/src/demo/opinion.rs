//! What the demo teaches by judgements: to be cheerful.
//!
//! A prompt is the first sentence of a review, which has no mood: `I ate the soup at the market.` Nothing says that it is one, so that
//! the base goes on with a story: demonstrations show that a review follows. It praises or complains; of two that follow the same
//! sentence, the one that praises is the better one.

use std::collections::HashSet;

use super::Row;
use super::random::Random;
use super::review::{Mood, Review, review};

/// Two ends of the same review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its first sentence.
    pub prompt: String,
    /// One that praises.
    pub cheerful: String,
    /// One that complains.
    pub gloomy: String,
}

/// `count` reviews; those that praise and those that complain take turns.
pub fn demonstrations(seed: u64, count: usize) -> Vec<Row> {
    (0..count).map(|row| begun(&mut Random::of_row(seed, "demonstration", row), [Mood::Good, Mood::Bad][row % 2])).collect()
}

/// `count` pairs.
pub fn pairs(seed: u64, count: usize) -> Vec<Pair> {
    // What is drawn before the mood counts is the same for both: the first sentence.
    let pair = |row: usize| {
        let [good, bad] = [Mood::Good, Mood::Bad].map(|mood| begun(&mut Random::of_row(seed, "pair", row), mood));
        Pair { prompt: good.prompt, cheerful: good.completion, gloomy: bad.completion }
    };
    (0..count).map(pair).collect()
}

/// How many different prompts can be asked for.
pub const MOST_PROMPTS: usize = 400;

/// `count` different prompts.
///
/// # Panics
/// If `count` is over [`MOST_PROMPTS`].
pub fn prompts(seed: u64, count: usize) -> Vec<String> {
    assert!(count <= MOST_PROMPTS, "[demo opinion] expected at most {MOST_PROMPTS} prompts, got {count}");
    let mut seen = HashSet::new();
    let all = (0..).map(|row| begun(&mut Random::of_row(seed, "prompt", row), Mood::Good).prompt);
    all.filter(|prompt| seen.insert(prompt.clone())).take(count).collect()
}

fn begun(random: &mut Random, mood: Mood) -> Row {
    let Review { text, .. } = review(random, mood);
    let end = text.find(". ").map_or(text.len(), |at| at + 1);
    Row { prompt: text[..end].into(), completion: text[end..].into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::mood;

    #[test]
    fn the_ends_of_a_pair_differ_in_their_mood_alone() {
        for Pair { prompt, cheerful, gloomy } in pairs(3, 1000) {
            assert_eq!([&prompt, &cheerful, &gloomy].map(|text| mood(text)), [None, Some(Mood::Good), Some(Mood::Bad)]);
            assert!(prompt.ends_with('.') && cheerful.starts_with(' ') && gloomy.starts_with(' '), "{prompt:?}");
        }
    }

    #[test]
    fn demonstrations_praise_and_complain_alike() {
        let rows = demonstrations(1, 1000);
        assert_eq!(rows.iter().filter(|row| mood(&row.completion) == Some(Mood::Good)).count(), 500);
    }

    #[test]
    fn as_many_prompts_as_promised() {
        for seed in 0..4 {
            assert_eq!(prompts(seed, MOST_PROMPTS).len(), MOST_PROMPTS);
        }
    }
}
