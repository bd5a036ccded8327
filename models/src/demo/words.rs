//! The nouns that stories, questions and reviews share.

/// Somebody with a name and the pronouns that go with it.
#[derive(Clone, Copy)]
pub(super) struct Person {
    pub(super) name: &'static str,
    /// "girl" or "boy".
    pub(super) child: &'static str,
    /// "she" or "he".
    pub(super) subject: &'static str,
    /// "her" or "him".
    pub(super) object: &'static str,
    /// "her" or "his".
    pub(super) possessive: &'static str,
}

/// Somewhere to be: "in the garden", "by the river".
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) preposition: &'static str,
    pub(super) noun: &'static str,
}

impl Place {
    /// "in the garden".
    pub(super) fn phrase(self) -> String {
        format!("{} the {}", self.preposition, self.noun)
    }
}

/// One animal, many animals.
#[derive(Clone, Copy)]
pub(super) struct Animal {
    pub(super) one: &'static str,
    pub(super) many: &'static str,
}

pub(super) const PEOPLE: [Person; 12] = [
    she("Mia"),
    she("Nora"),
    she("Ada"),
    she("Rosa"),
    she("Ivy"),
    she("Tess"),
    he("Sam"),
    he("Leo"),
    he("Otto"),
    he("Ben"),
    he("Hugo"),
    he("Finn"),
];

pub(super) const PLACES: [Place; 12] = [
    place("in", "forest"),
    place("in", "park"),
    place("by", "river"),
    place("by", "lake"),
    place("on", "hill"),
    place("on", "beach"),
    place("in", "garden"),
    place("in", "kitchen"),
    place("in", "barn"),
    place("in", "attic"),
    place("at", "market"),
    place("at", "school"),
];

/// The places where one gets wet when it rains.
pub(super) const OUTDOORS: &[Place] = PLACES.split_at(6).0;

/// Where a small thing can be put or found.
pub(super) const SPOTS: [&str; 12] = [
    "in the box",
    "in the basket",
    "in the bag",
    "in the drawer",
    "in the jar",
    "on the table",
    "on the shelf",
    "on the chair",
    "under the bed",
    "under the rug",
    "behind the door",
    "behind the clock",
];

/// Small things that one can carry, lose, give and colour.
pub(super) const THINGS: [&str; 12] =
    ["ball", "hat", "key", "book", "drum", "doll", "kite", "scarf", "bell", "cup", "spoon", "ring"];

pub(super) const COLOURS: [&str; 8] = ["red", "blue", "green", "yellow", "white", "black", "pink", "orange"];

pub(super) const ANIMALS: [Animal; 8] = [
    animal("fox", "foxes"),
    animal("owl", "owls"),
    animal("duck", "ducks"),
    animal("goat", "goats"),
    animal("cat", "cats"),
    animal("rabbit", "rabbits"),
    animal("mouse", "mice"),
    animal("dog", "dogs"),
];

/// "zero" to "eight".
pub(super) const NUMBERS: [&str; 9] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"];

const fn she(name: &'static str) -> Person {
    Person { name, child: "girl", subject: "she", object: "her", possessive: "her" }
}

const fn he(name: &'static str) -> Person {
    Person { name, child: "boy", subject: "he", object: "him", possessive: "his" }
}

const fn place(preposition: &'static str, noun: &'static str) -> Place {
    Place { preposition, noun }
}

const fn animal(one: &'static str, many: &'static str) -> Animal {
    Animal { one, many }
}
