//! Batches: examples in a seeded order, or drawn from sources in shares, padded to the longest or packed several to a row.
//!
//! A batch is a function of the examples, the seed and its number alone, so that a run which begins at
//! batch n sees what one that came there from 0 sees.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use super::IGNORE;
use super::encode::Example;
use super::mixture::{Mixture, Share, Source, Unit};
use super::order::Order;

/// A batch of B rows of T positions, row-major. Masks come from `lengths` and `segments`: what the padding
/// is filled with means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// B.
    pub rows: usize,
    /// T: the longest row's length.
    pub length: usize,
    /// Tokens `[B, T]`.
    pub ids: Vec<u32>,
    /// The token that follows each position [B, T], or [`IGNORE`] if its prediction carries no loss.
    pub targets: Vec<u32>,
    /// Each token's place in its example, from 0, `[B, T]`.
    pub positions: Vec<u32>,
    /// Which of its row's examples a token is of, from 0, `[B, T]`; [`IGNORE`] for padding.
    pub segments: Vec<u32>,
    /// Tokens of each row before its padding, `[B]`.
    pub lengths: Vec<u32>,
}

/// How examples are made into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Rows of a batch.
    pub batch_size: usize,
    /// With a length, rows hold as many whole examples as fit into it.
    pub packing: Option<usize>,
    /// Whether every epoch has an order of its own, or all have the examples'.
    pub shuffle: bool,
    /// What the orders depend on.
    pub seed: u64,
    /// The id that padding is filled with.
    pub padding: u32,
}

/// Hands out the batches of a run.
#[derive(Debug, Clone)]
pub struct Loader {
    examples: Vec<Example>,
    /// The examples of every row.
    rows: Vec<Vec<usize>>,
    options: Options,
    /// What draws the rows, and has drawn those of the batches so far.
    mixture: Option<RefCell<Mixture>>,
    order: Order,
}

impl Loader {
    /// Batches of these examples.
    ///
    /// # Panics
    /// If there are no examples, `batch_size` is 0, or an example is longer than the packed rows.
    #[track_caller]
    pub fn new(examples: Vec<Example>, options: Options) -> Loader {
        let rows = match options.packing {
            None => (0..examples.len()).map(|index| vec![index]).collect(),
            Some(capacity) => {
                let lengths: Vec<_> = examples.iter().map(|example| example.ids.len()).collect();
                pack(&lengths, capacity)
            }
        };
        let order = order(rows.len(), &options);
        Loader { examples, rows, options, mixture: None, order }
    }

    /// Batches of examples that are drawn from `sources`, whose own follow each other, in shares of this unit. An epoch is as many
    /// rows as there are examples, whichever they are.
    ///
    /// # Panics
    /// As [`new`](Loader::new), and as [`Mixture::new`]; if rows are to be packed, which is in an order of its own.
    #[track_caller]
    pub fn mixed(examples: Vec<Example>, sources: Vec<Source>, unit: Unit, options: Options) -> Loader {
        assert!(options.packing.is_none(), "[Loader] expected no packing of a mixture");
        let mixture = Mixture::new(sources, &examples, unit, options.shuffle.then_some(options.seed));
        Loader { mixture: Some(RefCell::new(mixture)), ..Loader::new(examples, options) }
    }

    /// The same examples in batches of so many rows.
    ///
    /// # Panics
    /// If that is 0.
    #[track_caller]
    pub fn with_batch_size(&self, batch_size: usize) -> Loader {
        let options = Options { batch_size, ..self.options };
        Loader { order: order(self.rows.len(), &options), options, ..self.clone() }
    }

    /// What the first so many batches hold of each source; nothing where none are mixed.
    pub fn shares(&self, batches: usize) -> Vec<Share> {
        let Some(mixture) = &self.mixture else { return Vec::new() };
        let mut mixture = mixture.borrow().rewound();
        let draws = batches.checked_sub(1).map_or(0, |last| self.order.draws(last).end);
        drawn(&mut mixture, draws..draws);
        mixture.shares()
    }

    /// Whether rows hold as many examples as fit.
    pub fn is_packed(&self) -> bool {
        self.options.packing.is_some()
    }

    /// Batches of an epoch; the last may have fewer rows.
    pub fn batches_per_epoch(&self) -> usize {
        self.order.batches_per_epoch()
    }

    /// Batch number `index` of the run, counted from 0 through all epochs.
    pub fn batch(&self, index: usize) -> Batch {
        let rows: Vec<Vec<&Example>> = self.rows_in(index).into_iter().map(|row| self.examples_of(row).collect()).collect();
        Batch::of_rows(&rows, self.options.padding)
    }

    /// The number of the first of the largest among so many batches, padding counted, and its rows and their length.
    pub fn largest(&self, batches: usize) -> (usize, [usize; 2]) {
        let length = |row| self.examples_of(row).map(|example| example.ids.len()).sum();
        let mut largest = (0, [0, 0]);
        for index in 0..batches {
            let rows = self.rows_in(index);
            let shape: [usize; 2] = [rows.len(), rows.into_iter().map(length).max().unwrap_or(0)];
            if shape[0] * shape[1] > largest.1[0] * largest.1[1] {
                largest = (index, shape);
            }
        }
        largest
    }

    /// The rows of a batch.
    fn rows_in(&self, index: usize) -> Vec<usize> {
        match &self.mixture {
            None => self.order.batch(index),
            Some(mixture) => drawn(&mut mixture.borrow_mut(), self.order.draws(index)),
        }
    }

    fn examples_of(&self, row: usize) -> impl Iterator<Item = &Example> {
        self.rows[row].iter().map(|&example| &self.examples[example])
    }
}

/// The order of rows.
#[track_caller]
fn order(rows: usize, options: &Options) -> Order {
    Order::new(rows, options.batch_size, options.shuffle.then_some(options.seed))
}

/// The draws of these numbers. A mixture that is past them begins again.
fn drawn(mixture: &mut Mixture, numbers: Range<usize>) -> Vec<usize> {
    if mixture.draws() > numbers.start {
        *mixture = mixture.rewound();
    }
    while mixture.draws() < numbers.start {
        mixture.draw();
    }
    numbers.map(|_| mixture.draw()).collect()
}

impl Batch {
    /// A batch of rows of whole examples, filled up with `padding` to the longest row.
    pub fn of_rows(rows: &[Vec<&Example>], padding: u32) -> Batch {
        let lengths: Vec<usize> = rows.iter().map(|row| row.iter().map(|example| example.ids.len()).sum()).collect();
        let length = lengths.iter().copied().max().unwrap_or(0);
        let mut batch = Batch {
            rows: rows.len(),
            length,
            ids: Vec::with_capacity(rows.len() * length),
            targets: Vec::with_capacity(rows.len() * length),
            positions: Vec::with_capacity(rows.len() * length),
            segments: Vec::with_capacity(rows.len() * length),
            lengths: lengths.iter().map(|&length| length as u32).collect(),
        };
        for (number, row) in rows.iter().enumerate() {
            for (segment, example) in row.iter().enumerate() {
                batch.ids.extend(&example.ids);
                batch.targets.extend(example.labels.iter().skip(1));
                // Nothing follows an example's last token, and in a packed row another example does.
                batch.targets.push(IGNORE);
                batch.positions.extend(0..example.ids.len() as u32);
                batch.segments.resize(batch.ids.len(), segment as u32);
            }
            let end = (number + 1) * length;
            batch.ids.resize(end, padding);
            batch.targets.resize(end, IGNORE);
            batch.positions.resize(end, 0);
            batch.segments.resize(end, IGNORE);
        }
        batch
    }

    /// Whether a row holds more than one example.
    pub fn is_packed(&self) -> bool {
        self.segments.iter().any(|&segment| segment != 0 && segment != IGNORE)
    }

    /// Predictions that carry loss.
    pub fn trained_tokens(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }

    /// Tokens, without padding.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().map(|&length| length as usize).sum()
    }
}

/// Puts items into bins of `capacity` by best fit decreasing: the longest first, each into the fullest bin
/// that it still fits. At most 11/9 of the bins needed, and one more (Johnson, 1973).
///
/// # Panics
/// If an item is longer than the capacity.
#[track_caller]
fn pack(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(lengths[item]));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // Bins by the room they have left.
    let mut by_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for item in order {
        let length = lengths[item];
        assert!(length <= capacity, "[pack] expected lengths up to {capacity}, got {length}");
        let fullest = by_room.range(length..).next().map(|(&room, _)| room);
        let (room, bin) = match fullest {
            Some(room) => {
                let bins = by_room.get_mut(&room).expect("found above");
                let bin = bins.pop().expect("empty lists are removed");
                if bins.is_empty() {
                    by_room.remove(&room);
                }
                (room, bin)
            }
            None => {
                bins.push(Vec::new());
                (capacity, bins.len() - 1)
            }
        };
        bins[bin].push(item);
        by_room.entry(room - length).or_default().push(bin);
    }
    bins
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
