//! Examples of several sources in chosen shares: which comes next.
//!
//! A source whose share is w is to have had w n of the first n examples (or tokens). Each draw goes to the source whose turn cannot
//! wait longest, of those that are behind far enough: Tijdeman's chairman assignment (1980, doi:10.1016/0012-365X(80)90269-1), by
//! which no source is ever a whole example before or behind its share. Tokens are counted in units of the longest example.

use serde::Serialize;

use super::encode::Example;
use super::shuffle::permutation;

/// Where some of the examples are from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// What it is called.
    pub name: String,
    /// How much of the mixture is to be of it, relative to the others: above 0, and finite.
    pub weight: f64,
    /// How many of the examples are its: those that follow the ones of the sources before it.
    pub examples: usize,
}

/// What shares are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Examples.
    Rows,
    /// Their tokens.
    Tokens,
}

/// How much of what was drawn is of one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// The source's name.
    pub name: String,
    /// What its share was to be.
    pub wanted: f64,
    /// Examples of it.
    pub rows: usize,
    /// Of all.
    pub of_rows: f64,
    /// Tokens of it.
    pub tokens: usize,
    /// Of all.
    pub of_tokens: f64,
    /// How many times all its examples were gone through.
    pub passes: f64,
}

/// Draws examples by number, in an order that depends on the sources, the lengths and the seed alone.
#[derive(Debug, Clone)]
pub struct Mixture {
    lengths: Vec<usize>,
    unit: Unit,
    /// What the orders depend on; without one they are those of the examples.
    seed: Option<u64>,
    /// Units of a step: the longest example.
    step: f64,
    draws: usize,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    source: Source,
    share: f64,
    /// The number of its first example.
    first: usize,
    /// In which its examples come in this pass.
    order: Vec<usize>,
    rows: usize,
    tokens: usize,
}

impl Mixture {
    /// Of these sources, whose `examples` follow each other. Each source's come in an order of its own in every pass through it, which
    /// depends on the `seed`; without one, as they are.
    ///
    /// # Panics
    /// If a source has no examples, all of them have not as many as there are, or a weight is not above 0 and finite.
    #[track_caller]
    pub fn new(sources: Vec<Source>, examples: &[Example], unit: Unit, seed: Option<u64>) -> Mixture {
        let total: f64 = sources.iter().map(|source| source.weight).sum();
        let counts: usize = sources.iter().map(|source| source.examples).sum();
        let is_sound = |source: &Source| source.examples > 0 && source.weight > 0.0;
        assert!(
            counts == examples.len() && total.is_finite() && sources.iter().all(is_sound),
            "[Mixture] expected {} examples of sources that weigh more than 0, got {sources:?}",
            examples.len()
        );
        let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let mut first = 0;
        let part = |source: Source| {
            let begins = first;
            first += source.examples;
            Part { share: source.weight / total, first: begins, order: Vec::new(), rows: 0, tokens: 0, source }
        };
        let parts = sources.into_iter().map(part).collect();
        let step = if unit == Unit::Rows { 1.0 } else { longest as f64 };
        Mixture { lengths, unit, seed, step, draws: 0, parts }
    }

    /// How many were drawn.
    pub fn draws(&self) -> usize {
        self.draws
    }

    /// The same before the first draw.
    pub fn rewound(&self) -> Mixture {
        let part = |part: &Part| Part { order: Vec::new(), rows: 0, tokens: 0, ..part.clone() };
        Mixture { draws: 0, parts: self.parts.iter().map(part).collect(), ..self.clone() }
    }

    /// The number of the next example.
    pub fn draw(&mut self) -> usize {
        let at = self.next_part();
        let stream = |pass: usize| (pass * self.parts.len() + at) as u64;
        let Part { source, rows, .. } = &self.parts[at];
        let (pass, place) = (rows / source.examples, rows % source.examples);
        if place == 0 {
            self.parts[at].order = match self.seed {
                Some(seed) => permutation(source.examples, seed, stream(pass)),
                None => (0..source.examples).collect(),
            };
        }
        let part = &mut self.parts[at];
        let example = part.first + part.order[place];
        part.rows += 1;
        part.tokens += self.lengths[example];
        self.draws += 1;
        example
    }

    fn next_part(&self) -> usize {
        let had = |part: &Part| if self.unit == Unit::Rows { part.rows } else { part.tokens } as f64;
        let all: f64 = self.parts.iter().map(had).sum::<f64>() + self.step;
        let least = self.step / (2 * self.parts.len().max(2) - 2) as f64;
        let behind = |part: &Part| part.share * all - had(part);
        let patience = |part: &Part| (self.step - least - behind(part)) / part.share;
        // All together they are one step behind, so that at least one is behind far enough.
        let ready = self.parts.iter().enumerate().filter(|(_, part)| behind(part) >= least);
        let next = ready.min_by(|(_, a), (_, b)| patience(a).total_cmp(&patience(b)));
        next.map_or(0, |(at, _)| at)
    }

    /// What was drawn so far, source by source.
    pub fn shares(&self) -> Vec<Share> {
        let [rows, tokens] =
            [|part: &Part| part.rows, |part: &Part| part.tokens].map(|of| self.parts.iter().map(of).sum::<usize>());
        let of = |part: usize, all: usize| part as f64 / all.max(1) as f64;
        let share = |part: &Part| Share {
            name: part.source.name.clone(),
            wanted: part.share,
            rows: part.rows,
            of_rows: of(part.rows, rows),
            tokens: part.tokens,
            of_tokens: of(part.tokens, tokens),
            passes: of(part.rows, part.source.examples),
        };
        self.parts.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn examples(lengths: &[usize]) -> Vec<Example> {
        lengths.iter().map(|&length| Example { ids: vec![1; length], labels: vec![1; length] }).collect()
    }

    /// Sources of these weights and these many examples.
    fn mixture(sources: &[(f64, usize)], lengths: &[usize], unit: Unit) -> Mixture {
        let source = |&(weight, examples): &(f64, usize)| Source { name: String::new(), weight, examples };
        Mixture::new(sources.iter().map(source).collect(), &examples(lengths), unit, Some(5))
    }

    #[test]
    fn every_pass_shows_a_sources_examples_once_in_an_order_of_its_own() {
        let mut mixture = mixture(&[(1.0, 4), (2.0, 3)], &[2; 7], Unit::Rows);
        let drawn: Vec<usize> = (0..36).map(|_| mixture.draw()).collect();
        let of_first: Vec<usize> = drawn.iter().copied().filter(|&number| number < 4).collect();
        assert_eq!(of_first.len(), 12);
        for pass in of_first.chunks(4) {
            let mut sorted = pass.to_vec();
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2, 3]);
        }
        assert!(of_first[..4] != of_first[4..8] || of_first[4..8] != of_first[8..]);
        let shares = mixture.shares();
        assert_eq!((shares[1].rows, shares[1].passes, shares[0].passes), (24, 8.0, 3.0));
        let mut again = mixture.rewound();
        assert_eq!((0..36).map(|_| again.draw()).collect::<Vec<_>>(), drawn);
    }

    proptest! {
        /// Tijdeman's bound: 1 - 1 / (2 k - 2) of k sources; the rest is rounding, of sums below 1e3.
        #[test]
        fn no_source_is_ever_a_whole_row_off_its_share(weights in prop::collection::vec(0.01f64..10.0, 1..8)) {
            let sources: Vec<(f64, usize)> = weights.iter().map(|&weight| (weight, 3)).collect();
            let mut mixture = mixture(&sources, &vec![1; 3 * sources.len()], Unit::Rows);
            let bound = 1.0 - 1.0 / (2 * sources.len().max(2) - 2) as f64 + 1e-9;
            for drawn in 1..400 {
                mixture.draw();
                for share in mixture.shares() {
                    prop_assert!((share.rows as f64 - share.wanted * f64::from(drawn)).abs() <= bound, "{share:?}");
                }
            }
        }

        /// The longest has up to 49 tokens.
        #[test]
        fn no_source_is_more_than_a_longest_row_off_its_share_of_tokens(
            weights in prop::collection::vec(0.01f64..10.0, 1..5),
            lengths in prop::collection::vec(1usize..50, 15),
        ) {
            let sources: Vec<(f64, usize)> = weights.iter().map(|&weight| (weight, 3)).collect();
            let mut mixture = mixture(&sources, &lengths[..3 * sources.len()], Unit::Tokens);
            for _ in 1..200 {
                mixture.draw();
                let shares = mixture.shares();
                let all: usize = shares.iter().map(|share| share.tokens).sum();
                for share in shares {
                    prop_assert!((share.tokens as f64 - share.wanted * all as f64).abs() <= 50.0, "{share:?}");
                }
            }
        }
    }
}
