//! Questions about a short context that holds the answer.

use super::random::Random;
use super::template::{capitalised, with_article};
use super::words::{ANIMALS, COLOURS, NUMBERS, PEOPLE, PLACES, Person, SPOTS, THINGS};

/// A context, a question about it and the only right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) context: String,
    pub(super) question: String,
    pub(super) answer: String,
}

impl Question {
    /// What stands before the answer.
    pub(super) fn prompt(&self) -> String {
        format!("{}\nQuestion: {}\nAnswer:", self.context, self.question)
    }
}

/// One question of a random kind.
pub(super) fn question(random: &mut Random) -> Question {
    let kind = random.pick(&KINDS);
    kind(random)
}

const KINDS: [fn(&mut Random) -> Question; 6] = [where_is_the_thing, where_is_the_person, what_colour, who_has_it, how_many, why];

fn asked(sentences: &[String], question: String, answer: &str) -> Question {
    Question { context: sentences.join(" "), question, answer: format!("{}.", capitalised(answer)) }
}

/// Things are put somewhere, and one may be moved; the last place counts.
fn where_is_the_thing(random: &mut Random) -> Question {
    let things: [&str; 2] = random.pick_distinct(&THINGS);
    let [first, second, moved]: [&str; 3] = random.pick_distinct(&SPOTS);
    let people: [Person; 2] = random.pick_distinct(&PEOPLE);
    let mut spots = [first, second];
    let mut sentences: Vec<String> = (0..2)
        .map(|i| {
            let colour = random.pick(&COLOURS);
            format!("{} put the {colour} {} {}.", people[i].name, things[i], spots[i])
        })
        .collect();
    if random.one_in(2) {
        let thing = random.below(2);
        spots[thing] = moved;
        let mover = random.pick(&people).name;
        sentences.push(format!("Then {mover} took the {} and put it {moved}.", things[thing]));
    }
    let thing = random.below(2);
    asked(&sentences, format!("Where is the {}?", things[thing]), spots[thing])
}

/// People go somewhere, and one may go on; the last place counts.
fn where_is_the_person(random: &mut Random) -> Question {
    let people: [Person; 3] = random.pick_distinct(&PEOPLE);
    let places = random.pick_distinct::<_, 4>(&PLACES);
    let count = 2 + random.below(2);
    let mut at = [0, 1, 2];
    let mut sentences: Vec<String> = (0..count).map(|i| format!("{} went to the {}.", people[i].name, places[i].noun)).collect();
    if random.one_in(2) {
        let person = random.below(count);
        at[person] = 3;
        sentences.push(format!("Later, {} went to the {}.", people[person].name, places[3].noun));
    }
    let person = random.below(count);
    asked(&sentences, format!("Where is {}?", people[person].name), &places[at[person]].phrase())
}

/// Two people own the same kind of thing in two colours.
fn what_colour(random: &mut Random) -> Question {
    let people: [Person; 2] = random.pick_distinct(&PEOPLE);
    let colours: [&str; 2] = random.pick_distinct(&COLOURS);
    let thing = random.pick(&THINGS);
    let sentences = [0, 1].map(|i| format!("{} has {} {thing}.", people[i].name, with_article(colours[i])));
    let i = random.below(2);
    if random.one_in(2) {
        asked(&sentences, format!("Who has the {} {thing}?", colours[i]), people[i].name)
    } else {
        let question = format!("What colour is {}'s {thing}?", people[i].name);
        asked(&sentences, question, colours[i])
    }
}

/// Two people have something and one of them gives it to a third.
fn who_has_it(random: &mut Random) -> Question {
    let people: [Person; 3] = random.pick_distinct(&PEOPLE);
    let things: [&str; 2] = random.pick_distinct(&THINGS);
    let given = random.below(2);
    let mut holders = [people[0].name, people[1].name];
    let mut sentences: Vec<String> = (0..2).map(|i| format!("{} had the {}.", holders[i], things[i])).collect();
    let taker = people[2].name;
    sentences.push(format!("{} gave the {} to {taker}.", holders[given], things[given]));
    holders[given] = taker;
    let thing = random.below(2);
    asked(&sentences, format!("Who has the {} now?", things[thing]), holders[thing])
}

/// A few animals, and some come or go.
fn how_many(random: &mut Random) -> Question {
    let animal = random.pick(&ANIMALS).many;
    let before = 2 + random.below(4);
    let change = 1 + random.below(before.min(4) - 1);
    let (verb, after) = if random.one_in(2) { ("came", before + change) } else { ("went away", before - change) };
    let more = if verb == "came" { " more" } else { "" };
    let sentences = [
        format!("There were {} {animal} {}.", NUMBERS[before], random.pick(&PLACES).phrase()),
        format!("Then {}{more} {verb}.", NUMBERS[change]),
    ];
    asked(&sentences, format!("How many {animal} are there now?"), NUMBERS[after])
}

/// Two people feel something and do something about it.
fn why(random: &mut Random) -> Question {
    let people: [Person; 2] = random.pick_distinct(&PEOPLE);
    let reasons: [Reason; 2] = random.pick_distinct(&REASONS);
    let sentences = [0, 1].map(|i| {
        let (Person { name, subject, possessive, .. }, reason) = (people[i], reasons[i]);
        let (did, rest) = (reason.did, reason.rest.replace("their", possessive));
        format!("{name} was {}, so {subject} {did} {rest}.", reason.feeling)
    });
    let i = random.below(2);
    let (Person { name, subject, possessive, .. }, reason) = (people[i], reasons[i]);
    asked(
        &sentences,
        format!("Why did {name} {} {}?", reason.did_plain, reason.rest.replace("their", possessive)),
        &format!("because {subject} was {}", reason.feeling),
    )
}

#[derive(Clone, Copy)]
struct Reason {
    feeling: &'static str,
    /// "took"
    did: &'static str,
    /// "take"
    did_plain: &'static str,
    rest: &'static str,
}

const REASONS: [Reason; 8] = [
    reason("hungry", "ate", "eat", "some bread"),
    reason("cold", "put on", "put on", "their scarf"),
    reason("tired", "went", "go", "to bed"),
    reason("wet", "sat", "sit", "by the fire"),
    reason("happy", "sang", "sing", "a song"),
    reason("sad", "called", "call", "their friend"),
    reason("hot", "swam", "swim", "in the lake"),
    reason("afraid", "hid", "hide", "under the bed"),
];

const fn reason(feeling: &'static str, did: &'static str, did_plain: &'static str, rest: &'static str) -> Reason {
    Reason { feeling, did, did_plain, rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers from the text alone, by rules that know nothing of the generator's state.
    fn read(context: &str, question: &str) -> String {
        let sentences: Vec<Vec<&str>> =
            context.split_terminator('.').map(|sentence| sentence.split_whitespace().collect()).collect();
        let asked: Vec<&str> = question.trim_end_matches('?').split(' ').collect();
        let last_with = |word: &str| {
            let found = sentences.iter().rev().find(|sentence| sentence.contains(&word));
            found.unwrap_or_else(|| panic!("no {word:?} in {context:?}")).clone()
        };
        match asked[..] {
            ["Where", "is", "the", thing] => {
                let sentence = last_with(thing);
                sentence[sentence.len() - 3..].join(" ")
            }
            ["Where", "is", person] => {
                let noun = *last_with(person).last().unwrap();
                let place = PLACES.iter().find(|place| place.noun == noun).unwrap();
                place.phrase()
            }
            ["Who", "has", "the", thing, "now"] => match last_with(thing)[..] {
                [_, "gave", "the", _, "to", taker] => taker.to_string(),
                [holder, "had", "the", _] => holder.to_string(),
                ref other => panic!("{other:?}"),
            },
            ["Who", "has", "the", colour, _] => last_with(colour)[0].to_string(),
            ["What", "colour", "is", owner, _] => last_with(owner.trim_end_matches("'s"))[3].to_string(),
            ["How", "many", animals, ..] => {
                let number = |word: &str| NUMBERS.iter().position(|number| *number == word);
                let before = number(last_with(animals)[2]).unwrap();
                let change = number(last_with("Then")[1]).unwrap();
                let comes = last_with("Then").contains(&"came");
                NUMBERS[if comes { before + change } else { before - change }].to_string()
            }
            ["Why", "did", person, ..] => {
                let sentence = last_with(person);
                format!("because {} was {}", sentence[4], sentence[2].trim_end_matches(','))
            }
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_answer_follows_from_its_context() {
        for row in 0..5000 {
            let Question { context, question, answer } = question(&mut Random::of_row(3, "test", row));
            let expected = format!("{}.", capitalised(&read(&context, &question)));
            assert_eq!(answer, expected, "{context} {question}");
        }
    }
}
