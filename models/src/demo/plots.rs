//! What happens in stories. The slots are those of `story::cast`.

/// A plot is a list of beats; a beat is one of its sentences, or none where one is empty.
pub(super) type Plot = &'static [&'static [&'static str]];

pub(super) const PLOTS: [Plot; 12] =
    [LOST, BROKEN, HUNGRY, CAUGHT_OUTSIDE, NOISE, SWAP, SEED, PRESENT, LEARNING, TRUTH, BOAST, STUCK];

const LOST: Plot = &[
    &[
        "{Hero} had {a colour} {thing}.",
        "{Hero} loved {their} {colour} {thing}.",
        "Once there was a {child} named {hero} who had {a colour} {thing}.",
    ],
    &["One {time}, it was gone.", "One {time}, {they} could not find it.", "But one {time}, {they} lost it {in place}."],
    &[
        "{They} looked {spot}, but it was not there.",
        "{They} looked {spot} and {other spot}, but there was no {thing}.",
        "{Hero} was sad and looked everywhere.",
    ],
    &[
        "Then {friend} saw something {colour} {in other}, and it was the {thing}!",
        "Then {a size} {animal} came along with the {thing}.",
        "{Friend} helped {them}, and at last they found it {in other}.",
    ],
    &[
        "{Hero} laughed and held it tight.",
        "{Hero} was so happy that {they} danced.",
        "From then on, {they} kept the {thing} {other spot}.",
        "\"There you are!\" said {hero}.",
    ],
];

const BROKEN: Plot = &[
    &[
        "{Hero} got {a colour} {fragile} from {elder}.",
        "{Hero} had {a colour} {fragile} that {they} loved.",
        "{Elder} made {a colour} {fragile} for {hero}.",
    ],
    &["One {time}, the {fragile} {broke}.", "But one {time}, it {broke}."],
    &["{Hero} began to cry.", "{Hero} was very sad.", "\"Oh no!\" said {hero}. \"My {fragile}!\""],
    &[
        "{Friend} came and {mended}.",
        "\"I can help,\" said {friend}, and {friend they} {mended}.",
        "{Elder} took the {fragile} and {mended}.",
    ],
    &[
        "Now it was as good as new.",
        "It was even better than before.",
        "{Hero} smiled and said, \"Thank you!\"",
        "From then on, {hero} took good care of it.",
    ],
];

const HUNGRY: Plot = &[
    &[
        "{Hero} met {a size} {animal} {in place}.",
        "One {time}, {hero} found {a size} {animal} {in place}.",
        "There was {a size} {animal} {in place}, and {hero} saw it every day.",
    ],
    &[
        "The {animal} was hungry, because there was nothing to eat.",
        "It was hungry and could not sleep.",
        "\"I am so hungry,\" said the {animal}.",
    ],
    &[
        "So {hero} gave it {their} {food}.",
        "{Hero} had some {food}, so {they} shared it.",
        "{Hero} ran home and came back with {food}.",
    ],
    &[
        "The next day, the {animal} brought {them} {a colour} {thing}.",
        "When {hero} lost {their} way, the {animal} showed {them} the path home.",
        "The {animal} ate it all and fell asleep.",
        "",
    ],
    &[
        "From then on, they were friends.",
        "{Hero} and the {animal} were friends for ever.",
        "\"You are kind,\" said the {animal}.",
        "It was a good day for both of them.",
    ],
];

const CAUGHT_OUTSIDE: Plot = &[
    &[
        "{Hero} and {friend} played {outdoors}.",
        "One day, {hero} and {friend} were {outdoors}.",
        "{Hero} took {their} {thing} and played with {friend} {outdoors}.",
    ],
    &["Then {weather}.", "Soon {weather}.", "They were far from home when {weather}."],
    &[
        "They were {cold}, so they ran home.",
        "{Friend} was {cold}, so {hero} gave {friend them} {their} {colour} coat.",
        "They got {cold} and ran all the way back.",
    ],
    &[
        "{Elder} made a fire and gave them {food}.",
        "{Elder} sat with them by the fire and told them a story.",
        "At home, {elder} had warm soup for them.",
    ],
    &[
        "Soon they were warm again.",
        "\"What a day!\" said {friend}.",
        "In the end, the sun came out, and they went out to play again.",
        "They both fell asleep by the fire.",
    ],
];

const NOISE: Plot = &[
    &[
        "One night, {hero} heard a noise.",
        "{Hero} could not sleep, because there was a noise in the kitchen.",
        "It was dark, and {hero} heard something move.",
    ],
    &[
        "\"Is it a ghost?\" {they} asked.",
        "{They} was afraid and called {friend}.",
        "{They} took a lamp and went to look.",
        "{They} hid in bed and did not move.",
    ],
    &["Something moved behind the door.", "The noise came again.", ""],
    &[
        "But it was only {a size} {animal} with {a colour} {thing}.",
        "Then {a size} {animal} came out and looked at {them}.",
        "It was no ghost, it was {a size} {animal}!",
    ],
    &[
        "{Hero} laughed and went back to bed.",
        "{Hero} gave it some {food}, and it was quiet at last.",
        "After that, {hero} was not afraid of the dark.",
        "\"Good night,\" said {hero}, and {they} slept until morning.",
    ],
];

const SWAP: Plot = &[
    &[
        "{Hero} had {a colour} {thing}, but {they} wanted {a other thing}.",
        "{Hero} was tired of {their} {colour} {thing} and wanted {a other thing}.",
    ],
    &[
        "{Friend} had {a other colour} {other thing}, but {friend they} wanted {a thing}.",
        "{In place}, {they} met {friend}, who had {a other colour} {other thing}.",
    ],
    &["\"Shall we swap?\" asked {hero}.", "\"Give me yours and take mine,\" said {friend}.", "\"Let us swap!\" they both said."],
    &[
        "{Hero} gave {friend} the {thing}, and {friend} gave {hero} the {other thing}.",
        "So {friend} took the {thing}, and {hero} took the {other thing}.",
    ],
    &[
        "Both went home happy.",
        "Now both had what they wanted.",
        "The next day they swapped back, because they missed their old things.",
        "{Elder} saw it and smiled.",
    ],
];

const SEED: Plot = &[
    &["{Elder} gave {hero} a seed.", "{Hero} found a little seed {spot}.", "{Hero} got a seed from {friend}."],
    &["{They} put it in the ground {outdoors}.", "{Hero} planted it {outdoors}."],
    &[
        "Every day {they} gave it water.",
        "{They} gave it water and sang to it.",
        "The sun was hot, so {they} gave it water every {time}.",
    ],
    &["For a long time, nothing happened.", "{Friend} said, \"It will never grow.\"", ""],
    &[
        "Then one {time}, there was {a plant}!",
        "In the end, it grew into a big {plant}.",
        "At last, {a plant} grew, and it was as tall as {hero}.",
    ],
    &["{Hero} was proud.", "{Hero} showed it to {friend}, and they were glad.", "Soon {a animal} came to live under it.", ""],
];

const PRESENT: Plot = &[
    &[
        "It was {friend}'s birthday.",
        "{Friend} had a birthday, and {hero} had no present.",
        "{Hero} wanted to give {friend} a present.",
    ],
    &[
        "{Hero} had no money, so {they} made {a craft}.",
        "So {hero} took some wood and made {a craft}.",
        "{Hero} worked all day and made {a craft}.",
    ],
    &[
        "{They} painted it {colour}.",
        "{They} painted it {colour}, because {friend} loved {colour}.",
        "{They} painted it {colour} and hid it {spot}.",
    ],
    &[
        "When {friend} saw it, {friend they} laughed with joy.",
        "\"Is it for me?\" asked {friend}. \"Yes,\" said {hero}.",
        "\"It is the best {craft} of all,\" said {friend}.",
    ],
    &["Then they ate {food} {in place}.", "{Friend} took it everywhere from that day on.", "{Hero} was happy too."],
];

const LEARNING: Plot = &[
    &[
        "{Hero} wanted to learn to {skill}.",
        "{Friend} could {skill}, and {hero} wanted to do it too.",
        "\"I want to {skill},\" said {hero}.",
    ],
    &["The first time, {they} {failed}.", "{They} tried, but {they} {failed}.", "On the first day, {they} {failed}."],
    &[
        "{Friend} laughed, but then {friend they} helped {hero}.",
        "\"Try again,\" said {elder}.",
        "{Hero} was sad, but {they} did not stop.",
    ],
    &["Every {time}, {they} tried again.", "{They} tried again and again.", ""],
    &["At last, {they} {managed}.", "Then one {time}, {hero} {managed}!", "In the end, {they} {managed}, and {friend} clapped."],
    &["{Hero} was proud.", "\"I can do it!\" said {hero}.", ""],
];

const TRUTH: Plot = &[
    &["{Elder} put some {dish} on the table.", "There was some {dish} in the kitchen.", "{Elder} made {dish} for the evening."],
    &["{Hero} was hungry, so {they} ate it all.", "{Hero} ate a little, and then a little more, until there was nothing left."],
    &["\"Who ate the {dish}?\" asked {elder}.", "{Elder} came back and asked, \"Where is the {dish}?\""],
    &[
        "{Hero} turned red and said, \"It was me.\"",
        "\"It was the {animal},\" said {hero}, but then {they} told the truth.",
        "First {hero} hid under the bed, but then {they} came out and told the truth.",
    ],
    &[
        "{Elder} smiled, because {hero} had told the truth.",
        "\"Then help me make some more,\" said {elder}.",
        "So they made new {dish} and shared it with {friend}.",
    ],
];

const BOAST: Plot = &[
    &["\"I am the best,\" said the {size} {animal}.", "{A size} {animal} lived {in place} and thought it was the best of all."],
    &["\"I can run to the lake and back before you can eat your {food},\" it told {hero}.", "It asked {hero} to run a race."],
    &["So {hero} and the {animal} ran.", "{Hero} said yes, and off they went."],
    &[
        "The {animal} was fast, but it stopped to sleep under a tree, so {hero} won.",
        "The {animal} stopped to look at {a colour} flower and forgot the race, so {hero} won.",
        "The {animal} looked back and fell into the water, so {hero} stopped and helped it.",
    ],
    &[
        "After that, the {animal} was quiet.",
        "\"You are fast too,\" said the {animal}.",
        "Then they shared some {food} and were friends.",
    ],
];

const STUCK: Plot = &[
    &[
        "Once {a size} {animal} fell into a hole {outdoors}.",
        "{A size} {animal} was stuck in a hole {outdoors}.",
        "{Hero} heard a cry {outdoors}, where {a size} {animal} was stuck under a stone.",
    ],
    &[
        "{Hero} called to it, but it was too afraid.",
        "\"Help me!\" it cried.",
        "{Hero} could not do it alone, so {they} called {friend}.",
    ],
    &["{Friend} came with a rope.", "{Friend} had an idea and brought {a colour} scarf.", "{Elder} and {friend} came to help."],
    &["They pulled and pulled.", "Together they pulled.", "One, two, three, and they pulled!"],
    &["At last, the {animal} was free.", "Soon the {animal} was safe.", "The {animal} came free and jumped for joy."],
    &["It never forgot {hero}.", "{Hero} gave it some {food}.", ""],
];
