//! The task of the demo: name the mood of a review and give the reason.
//!
//! ```text
//! Review: I read a book about a giant. The cover was ugly, but the story was lovely. I smiled all day.
//! Mood: good, because the story was lovely.
//! ```
//!
//! The base model has read reviews and has read "because", but never an answer like this one.

use std::collections::HashSet;

use super::Row;
use super::random::Random;
use super::review::{Mood, Review, mood, review};
use crate::hash::fnv1a;

/// `count` different rows to train on; good and bad take turns.
///
/// # Panics
/// If `count` is over [`MOST_ROWS`].
pub fn rows(seed: u64, count: usize) -> Vec<Row> {
    draw(seed, "task", count, false)
}

/// `count` different rows to test on; good and bad take turns. Whatever the seeds, none of their reviews
/// is in [`rows`] or among the pretraining documents.
///
/// # Panics
/// If `count` is over [`MOST_ROWS`].
pub fn held_out(seed: u64, count: usize) -> Vec<Row> {
    draw(seed, "held out", count, true)
}

/// How many different rows can be asked for.
pub const MOST_ROWS: usize = 10_000;

/// What is right in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// It begins with the mood of the review.
    pub mood: bool,
    /// Its "because" is followed by something that the review says, word for word, in that mood.
    pub reason: bool,
}

/// Checks an answer to `row`. Any true reason counts, not just the one in the row's completion.
pub fn score(row: &Row, answer: &str) -> Score {
    let expected = mood(&row.prompt);
    let named = answer.trim_start().split(|letter: char| !letter.is_alphabetic()).next();
    let reason = answer.split_once(", because ").and_then(|(_, rest)| rest.split_once('.')).map_or("", |(reason, _)| reason);
    let said = row.prompt.to_lowercase().contains(&reason.to_lowercase());
    Score { mood: named == expected.map(Mood::word), reason: reason.starts_with("the ") && mood(reason) == expected && said }
}

/// One review in eight is kept for testing, told by its text alone.
pub(super) fn is_held_out(review: &str) -> bool {
    fnv1a(review.bytes()).is_multiple_of(8)
}

#[track_caller]
fn draw(seed: u64, stream: &str, count: usize, held_out: bool) -> Vec<Row> {
    assert!(count <= MOST_ROWS, "[demo task] expected at most {MOST_ROWS} rows, got {count}");
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(count);
    for attempt in 0.. {
        if rows.len() == count {
            break;
        }
        let mood = [Mood::Good, Mood::Bad][rows.len() % 2];
        let Review { text, reason } = review(&mut Random::of_row(seed, stream, attempt), mood);
        if is_held_out(&text) == held_out && seen.insert(text.clone()) {
            rows.push(Row {
                prompt: format!("Review: {text}\nMood:"),
                completion: format!(" {}, because {reason}.", mood.word()),
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_different_and_balanced() {
        for rows in [rows(0, 2000), held_out(0, 2000)] {
            let prompts: HashSet<&str> = rows.iter().map(|row| row.prompt.as_str()).collect();
            assert_eq!(prompts.len(), 2000);
            let good = rows.iter().filter(|row| row.completion.starts_with(" good,"));
            assert_eq!(good.count(), 1000);
        }
    }

    #[test]
    fn no_held_out_row_is_trained_on_under_any_seeds() {
        let trained: HashSet<String> = (0..4).flat_map(|seed| rows(seed, 2000)).map(|row| row.prompt).collect();
        for seed in 0..4 {
            for row in held_out(seed, 500) {
                assert!(!trained.contains(&row.prompt), "{}", row.prompt);
            }
        }
    }

    #[test]
    fn as_many_rows_as_promised() {
        assert_eq!(rows(1, MOST_ROWS).len(), MOST_ROWS);
        assert_eq!(held_out(1, MOST_ROWS).len(), MOST_ROWS);
    }

    #[test]
    fn every_completion_is_right() {
        for row in rows(3, 1000).into_iter().chain(held_out(3, 1000)) {
            let right = Score { mood: true, reason: true };
            assert_eq!(score(&row, &row.completion), right, "{row:?}");
        }
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let row = Row {
            prompt: "Review: I had the soup. The cook was rude, but the soup was tasty. I smiled.\nMood:".into(),
            completion: " good, because the soup was tasty.".into(),
        };
        let judged = |answer: &str| {
            let Score { mood, reason } = score(&row, answer);
            (mood, reason)
        };
        assert_eq!(judged(" good, because the soup was tasty."), (true, true));
        assert_eq!(judged(" good, because the soup was fresh."), (true, false), "not said");
        assert_eq!(judged(" good, because the cook was rude."), (true, false), "the other mood");
        assert_eq!(judged(" bad, because the soup was tasty."), (false, true));
        assert_eq!(judged(" goodness"), (false, false));
        assert_eq!(judged(" In the box."), (false, false));
        assert_eq!(judged(""), (false, false));
    }
}
