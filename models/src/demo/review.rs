//! Reviews whose mood shows in their words and is never named.

use super::random::Random;
use super::template::{Slots, capitalised};
use super::words::PEOPLE;

/// Whether a review praises or complains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It praises.
    Good,
    /// It complains.
    Bad,
}

impl Mood {
    /// "good" or "bad".
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }

    /// The other mood.
    pub fn opposite(self) -> Self {
        match self {
            Self::Good => Self::Bad,
            Self::Bad => Self::Good,
        }
    }
}

/// The mood of a text: the one that more of its words belong to, none where they balance. The
/// language has no negation in its reviews, so words are enough.
pub fn mood(review: &str) -> Option<Mood> {
    let balance: i32 = words(review).filter_map(mood_of_word).map(|mood| if mood == Mood::Good { 1 } else { -1 }).sum();
    match balance {
        1.. => Some(Mood::Good),
        0 => None,
        _ => Some(Mood::Bad),
    }
}

/// The mood that a word shows in a review, if any.
pub(super) fn mood_of_word(word: &str) -> Option<Mood> {
    let shows = |mood: Mood| {
        let of_parts = SUBJECTS.iter().flat_map(|subject| subject.parts);
        of_parts.flat_map(|part| part.words(mood)).chain(signs(mood)).any(|shown| shown.eq_ignore_ascii_case(word))
    };
    [Mood::Good, Mood::Bad].into_iter().find(|mood| shows(*mood))
}

/// A review's text and the first thing it says in its own mood: "the soup was warm".
pub(super) struct Review {
    pub(super) text: String,
    pub(super) reason: String,
}

/// A review of a random subject in the given mood, two to five sentences long.
pub(super) fn review(random: &mut Random, mood: Mood) -> Review {
    let subject = random.pick(&SUBJECTS);
    let [writer, companion] = random.pick_distinct(&PEOPLE);
    let mut slots = Slots::default();
    slots.bind("subject", random.pick(subject.names));
    slots.bind("writer", writer.name);
    slots.bind("friend", companion.name);

    let mut sentences = vec![slots.fill(random.pick(subject.openers))];
    let [first, second, third] = random.pick_distinct(subject.parts);
    let word = random.pick(first.words(mood));
    let reason = slots.fill(&format!("the {} was {word}", first.name));
    let judgement = match random.below(4) {
        // A review may grant something to the other side; what follows outweighs it.
        0 => {
            let granted = random.pick(third.words(mood.opposite()));
            slots.fill(&format!("the {} was {granted}, but {reason}", third.name))
        }
        1 => reason.clone(),
        _ => {
            let others: Vec<&str> = second.words(mood).iter().copied().filter(|other| *other != word).collect();
            let also = random.pick(&others);
            slots.fill(&format!("{reason} and the {} was {also}", second.name))
        }
    };
    sentences.push(format!("{}.", capitalised(&judgement)));
    sentences.push(slots.fill(random.pick(reactions(mood))));
    if random.one_in(2) {
        sentences.push(slots.fill(random.pick(closers(mood))));
    }
    Review { text: sentences.join(" "), reason }
}

/// The words of a text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty())
}

/// What can be reviewed.
#[derive(Clone, Copy)]
struct Subject {
    names: &'static [&'static str],
    /// First sentences, without a mood.
    openers: &'static [&'static str],
    parts: &'static [Part],
}

/// A side of a subject and what can be said of it.
#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    good: &'static [&'static str],
    bad: &'static [&'static str],
}

impl Part {
    fn words(&self, mood: Mood) -> &'static [&'static str] {
        match mood {
            Mood::Good => self.good,
            Mood::Bad => self.bad,
        }
    }
}

const fn part(name: &'static str, good: &'static [&'static str], bad: &'static [&'static str]) -> Part {
    Part { name, good, bad }
}

const SUBJECTS: [Subject; 5] = [
    Subject {
        names: &["soup", "pie", "cake", "bread", "stew", "rice"],
        openers: &[
            "I ate the {subject} at the market.",
            "{Friend} and I tried the {subject} by the lake.",
            "We went out to eat, and I had the {subject}.",
            "{Friend} took me to eat {subject}.",
        ],
        parts: &[
            part("{subject}", &["tasty", "fresh", "perfect"], &["burnt", "stale", "sour"]),
            part("smell", &["lovely", "sweet"], &["awful", "strange"]),
            part("cook", &["kind", "friendly", "cheerful"], &["rude", "grumpy"]),
            part("table", &["clean", "pretty"], &["dirty", "sticky"]),
        ],
    },
    Subject {
        names: &["dragon", "ghost", "queen", "robot", "whale", "horse"],
        openers: &[
            "I saw a film about a {subject}.",
            "{Friend} and I saw the film about the {subject}.",
            "Last night we saw the new film about a {subject}.",
            "{Friend} showed me a film about a {subject}.",
        ],
        parts: &[
            part("film", &["funny", "exciting", "clever"], &["boring", "slow", "silly"]),
            part("ending", &["lovely", "perfect", "exciting"], &["weak", "silly", "awful"]),
            part("music", &["beautiful", "lovely", "cheerful"], &["noisy", "awful", "boring"]),
            part("{subject}", &["funny", "brave", "clever"], &["rude", "boring", "grumpy"]),
        ],
    },
    Subject {
        names: &["pirate", "king", "bear", "giant", "moon", "wizard"],
        openers: &[
            "I read a book about a {subject}.",
            "{Friend} gave me a book about a {subject}.",
            "{Friend} and I read the book about the {subject}.",
            "My school has a new book about a {subject}.",
        ],
        parts: &[
            part("book", &["funny", "exciting", "clever"], &["boring", "slow", "silly"]),
            part("story", &["lovely", "exciting", "beautiful"], &["strange", "boring", "weak"]),
            part("ending", &["perfect", "lovely", "clever"], &["weak", "awful", "silly"]),
            part("cover", &["pretty", "beautiful"], &["ugly", "dirty"]),
        ],
    },
    Subject {
        names: &["train", "robot", "doll", "boat", "drum", "puzzle"],
        openers: &[
            "I got a toy {subject} for my birthday.",
            "{Friend} gave me a toy {subject}.",
            "We have a new toy {subject} at home.",
            "I got the toy {subject} at the market.",
        ],
        parts: &[
            part("{subject}", &["clever", "pretty", "perfect"], &["weak", "ugly", "useless"]),
            part("paint", &["pretty", "fresh"], &["ugly", "sticky"]),
            part("box", &["pretty", "clean"], &["dirty", "ugly"]),
            part("price", &["perfect", "fair"], &["awful", "silly"]),
        ],
    },
    Subject {
        names: &["castle", "zoo", "island", "farm", "harbour", "palace"],
        openers: &[
            "I took a trip to the {subject}.",
            "{Friend} and I went to the {subject}.",
            "My school took us to the {subject}.",
            "Last week we went to see the {subject}.",
        ],
        parts: &[
            part("{subject}", &["beautiful", "exciting", "pretty"], &["dirty", "boring", "ugly"]),
            part("guide", &["kind", "funny", "friendly"], &["rude", "grumpy", "slow"]),
            part("bus", &["clean", "perfect"], &["slow", "noisy", "dirty"]),
            part("view", &["lovely", "beautiful"], &["awful", "boring"]),
        ],
    },
];

fn reactions(mood: Mood) -> &'static [&'static str] {
    match mood {
        Mood::Good => &[
            "I smiled all day.",
            "{Friend} laughed and clapped.",
            "{Friend} and I cheered.",
            "I enjoyed every bit of it.",
            "{Friend} laughed and sang.",
            "I smiled and told {writer} about it.",
        ],
        Mood::Bad => &[
            "I yawned all day.",
            "{Friend} sighed and frowned.",
            "{Friend} and I complained.",
            "I complained and frowned.",
            "{Friend} groaned and sighed.",
            "I groaned and told {writer} about it.",
        ],
    }
}

fn closers(mood: Mood) -> &'static [&'static str] {
    match mood {
        Mood::Good => &["What a treat!", "I love it!", "It was a joy.", "{Writer} will love it too."],
        Mood::Bad => &["What a waste!", "I regret it.", "It was a mistake.", "{Writer} will hate it too."],
    }
}

/// The words of reactions and closers that show a mood.
fn signs(mood: Mood) -> &'static [&'static str] {
    match mood {
        Mood::Good => &["smiled", "laughed", "clapped", "cheered", "enjoyed", "joy", "treat", "love"],
        Mood::Bad => &["yawned", "sighed", "frowned", "complained", "groaned", "waste", "regret", "mistake", "hate"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOODS: [Mood; 2] = [Mood::Good, Mood::Bad];

    #[test]
    fn a_review_is_in_the_mood_it_was_written_in() {
        for row in 0..5000 {
            for written in MOODS {
                let Review { text, reason } = review(&mut Random::of_row(5, "test", row), written);
                assert_eq!(mood(&text), Some(written), "{text}");
                assert_eq!(mood(&reason), Some(written), "{reason}");
                assert!(text.to_lowercase().contains(&reason), "{reason:?} in {text:?}");
            }
        }
    }

    #[test]
    fn no_word_shows_both_moods() {
        for subject in &SUBJECTS {
            for part in subject.parts {
                for shown in MOODS {
                    for word in part.words(shown).iter().chain(signs(shown)) {
                        assert_eq!(mood_of_word(word), Some(shown), "{word}");
                    }
                }
            }
        }
    }

    #[test]
    fn openers_and_names_show_no_mood() {
        for subject in &SUBJECTS {
            for text in subject.openers.iter().chain(subject.names) {
                assert_eq!(words(text).find_map(mood_of_word), None, "{text}");
            }
        }
    }

    #[test]
    fn a_text_without_mood_or_with_both_has_none() {
        assert_eq!(mood("I read a book."), None);
        assert_eq!(mood("The soup was tasty, but the cook was rude."), None);
        assert_eq!(mood("The soup was tasty and the cook was kind, but it was burnt."), Some(Mood::Good));
    }
}
