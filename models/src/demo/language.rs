//! The language itself: what the base model reads before it is tuned.

use super::Row;
use super::question::{Question, question};
use super::random::Random;
use super::review::{Mood, review};
use super::story::story;
use super::task;

/// `count` documents: two in five are stories, two in five a context with a question and its answer,
/// one in five a review. No review is one of [`task::held_out`], and none is followed by its mood.
pub fn pretraining_documents(seed: u64, count: usize) -> Vec<String> {
    (0..count).map(|index| document(&mut Random::of_row(seed, "pretraining", index))).collect()
}

/// `count` questions of the kind that the base model reads, as rows: how well it has learnt to answer.
pub fn question_rows(seed: u64, count: usize) -> Vec<Row> {
    (0..count).map(|index| row_of(&question(&mut Random::of_row(seed, "questions", index)))).collect()
}

fn document(random: &mut Random) -> String {
    match random.below(5) {
        0 | 1 => story(random),
        2 | 3 => {
            let Row { prompt, completion } = row_of(&question(random));
            prompt + &completion
        }
        _ => loop {
            let mood = random.pick(&[Mood::Good, Mood::Bad]);
            let text = review(random, mood).text;
            if !task::is_held_out(&text) {
                return format!("Review: {text}");
            }
        },
    }
}

fn row_of(question: &Question) -> Row {
    Row { prompt: question.prompt(), completion: format!(" {}", question.answer) }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::super::review::words;
    use super::*;
    use crate::hash::fnv1a;

    #[test]
    fn the_same_seed_gives_the_same_language_everywhere() {
        let documents = pretraining_documents(0, 100);
        assert_eq!(fnv1a(documents.join("\n\n").bytes()), 0x4230_49C1_CF12_7198);
        assert_eq!(documents[..40], pretraining_documents(0, 40));
        assert_ne!(documents, pretraining_documents(1, 100));
    }

    #[test]
    fn documents_hardly_ever_repeat() {
        let documents: HashSet<String> = pretraining_documents(0, 20_000).into_iter().collect();
        assert!(documents.len() > 19_000, "{}", documents.len());
    }

    #[test]
    fn a_small_vocabulary_of_words_that_all_come_often() {
        let documents = pretraining_documents(0, 20_000);
        let mut counts = HashMap::new();
        for word in documents.iter().flat_map(|document| words(document)) {
            *counts.entry(word.to_lowercase()).or_insert(0) += 1;
        }
        assert!((300..=500).contains(&counts.len()), "{}", counts.len());
        let rarest = counts.iter().min_by_key(|(_, count)| **count).unwrap();
        assert!(*rarest.1 >= 20, "{rarest:?}");
    }

    #[test]
    fn documents_are_short_clean_text() {
        for document in pretraining_documents(0, 5000) {
            assert!((40..=400).contains(&document.len()), "{document:?}");
            assert!(document.is_ascii() && !document.contains("  "), "{document:?}");
            assert!(!document.contains(['{', '}', '|', '<']), "{document:?}");
            assert!(document.starts_with(|first: char| first.is_uppercase() || first == '"'));
            assert!(document.ends_with(['.', '!', '?', '"']), "{document:?}");
        }
    }

    #[test]
    fn a_mood_is_never_named() {
        for document in pretraining_documents(0, 5000) {
            assert!(!document.contains("Mood"), "{document:?}");
            if let Some(review) = document.strip_prefix("Review: ") {
                assert!(words(review).all(|word| word != "good" && word != "bad"), "{review:?}");
                assert!(!task::is_held_out(review), "{review:?}");
            }
        }
    }
}
