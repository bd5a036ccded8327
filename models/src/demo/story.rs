//! Short stories: somebody, something that happens, what it leads to, and an ending.

use super::plots::PLOTS;
use super::random::Random;
use super::template::Slots;
use super::words::{ANIMALS, COLOURS, OUTDOORS, PEOPLE, PLACES, SPOTS, THINGS};

/// A story of three to six sentences, or a few more where somebody speaks.
pub(super) fn story(random: &mut Random) -> String {
    let slots = cast(random);
    let plot = random.pick(&PLOTS);
    let sentences: Vec<String> =
        plot.iter().map(|beat| slots.fill(random.pick(beat))).filter(|sentence| !sentence.is_empty()).collect();
    sentences.join(" ")
}

/// Draws everything that any plot may speak of: who, where and with what.
fn cast(random: &mut Random) -> Slots {
    let [hero, friend] = random.pick_distinct(&PEOPLE);
    let [place, other] = random.pick_distinct(&PLACES);
    let [spot, other_spot] = random.pick_distinct(&SPOTS);
    let [thing, other_thing] = random.pick_distinct(&THINGS);
    let [colour, other_colour] = random.pick_distinct(&COLOURS);
    let (fragile, broke, mended) = random.pick(&FRAGILE);
    let (skill, failed, managed) = random.pick(&SKILLS);
    let (weather, cold) = random.pick(&WEATHER);

    let mut slots = Slots::default();
    slots.bind("hero", hero.name);
    slots.bind("child", hero.child);
    slots.bind("they", hero.subject);
    slots.bind("them", hero.object);
    slots.bind("their", hero.possessive);
    slots.bind("friend", friend.name);
    slots.bind("friend they", friend.subject);
    slots.bind("friend them", friend.object);
    slots.bind("elder", random.pick(&ELDERS));
    slots.bind("animal", random.pick(&ANIMALS).one);
    slots.bind("size", random.pick(&SIZES));
    slots.bind("in place", place.phrase());
    slots.bind("outdoors", random.pick(OUTDOORS).phrase());
    slots.bind("in other", other.phrase());
    slots.bind("spot", spot);
    slots.bind("other spot", other_spot);
    slots.bind("thing", thing);
    slots.bind("other thing", other_thing);
    slots.bind("colour", colour);
    slots.bind("other colour", other_colour);
    slots.bind("fragile", fragile);
    slots.bind("broke", broke);
    slots.bind("mended", mended);
    slots.bind("skill", skill);
    slots.bind("failed", failed);
    slots.bind("managed", managed);
    slots.bind("weather", weather);
    slots.bind("cold", cold);
    slots.bind("food", random.pick(&FOODS));
    slots.bind("dish", random.pick(&DISHES));
    slots.bind("plant", random.pick(&PLANTS));
    slots.bind("craft", random.pick(&CRAFTS));
    slots.bind("time", random.pick(&TIMES));
    slots
}

const ELDERS: [&str; 4] = ["Grandma", "Grandpa", "Mama", "Papa"];
const SIZES: [&str; 4] = ["little", "big", "old", "young"];
const TIMES: [&str; 4] = ["morning", "evening", "day", "night"];
const FOODS: [&str; 6] = ["bread", "cheese", "soup", "cake", "rice", "honey"];
const DISHES: [&str; 4] = ["cake", "soup", "pie", "bread"];
const PLANTS: [&str; 4] = ["flower", "pumpkin", "apple tree", "rose"];
const CRAFTS: [&str; 6] = ["drum", "doll", "boat", "spoon", "box", "ring"];

/// What breaks, how, and how a friend mends it.
const FRAGILE: [(&str, &str, &str); 6] = [
    ("kite", "flew into a tree and tore", "sewed it with thread"),
    ("cup", "fell to the floor and broke", "put it together with glue"),
    ("boat", "hit a stone and began to leak", "closed the hole with wax"),
    ("lamp", "fell off the table and broke", "gave it a new glass"),
    ("drum", "rolled down the stairs and broke", "gave it a new skin"),
    ("doll", "fell and lost an arm", "sewed the arm on again"),
];

/// What one can learn, how it goes wrong at first, and how it goes well.
const SKILLS: [(&str, &str, &str); 6] = [
    ("swim", "went under like a stone", "swam like a fish"),
    ("sing", "sounded like a duck", "sang like a bird"),
    ("dance", "fell over a chair", "danced until the stars came out"),
    ("ride a horse", "fell into the mud", "rode over the hill and back"),
    ("bake bread", "burned it black", "baked enough for everyone"),
    ("climb a tree", "slid down again", "climbed up to the top"),
];

/// What the weather did, and how it left somebody.
const WEATHER: [(&str, &str); 4] =
    [("it began to rain", "wet"), ("it began to snow", "cold"), ("a cold wind came", "cold"), ("a storm came", "wet")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_of_every_plot_fills_and_ends() {
        for row in 0..200 {
            let slots = cast(&mut Random::of_row(0, "test", row));
            for sentence in PLOTS.iter().copied().flatten().copied().flatten() {
                let text = slots.fill(sentence);
                assert!(text.is_empty() || text.ends_with(['.', '!', '"', '?']), "{text:?}");
            }
        }
    }

    #[test]
    fn pronouns_agree_with_the_hero() {
        for row in 0..2000 {
            let random = &mut Random::of_row(0, "test", row);
            let slots = cast(random);
            let hero = slots.fill("{hero}");
            let person = PEOPLE.iter().find(|person| person.name == hero).unwrap();
            assert_eq!(slots.fill("{they} {them} {their}"), [person.subject, person.object, person.possessive].join(" "));
            assert_ne!(hero, slots.fill("{friend}"));
        }
    }
}
