//! Which items each batch of a run holds: all of them once an epoch.

use std::cell::RefCell;
use std::ops::Range;

use super::shuffle::permutation;

/// An order of items that depends on their number, a seed and the batch's number alone, so that a run which begins at batch n sees
/// what one that came there from 0 sees.
#[derive(Debug, Clone)]
pub struct Order {
    items: usize,
    batch_size: usize,
    /// With a seed every epoch has an order of its own; without one all have the items'.
    seed: Option<u64>,
    /// The epoch whose order was asked for last, and that order.
    last: RefCell<(usize, Vec<usize>)>,
}

impl Order {
    /// Of so many items, so many a batch.
    ///
    /// # Panics
    /// If either is 0.
    #[track_caller]
    pub fn new(items: usize, batch_size: usize, seed: Option<u64>) -> Order {
        assert!(items > 0, "[Order] expected examples, got none");
        assert!(batch_size > 0, "[Order] expected a batch size above 0, got 0");
        Order { items, batch_size, seed, last: RefCell::new((0, ordered(items, seed, 0))) }
    }

    /// Batches of an epoch; the last may have fewer items.
    pub fn batches_per_epoch(&self) -> usize {
        self.items.div_ceil(self.batch_size)
    }

    /// Which draws of the run a batch is made of, counted through all epochs.
    pub fn draws(&self, batch: usize) -> Range<usize> {
        let (epoch, number) = (batch / self.batches_per_epoch(), batch % self.batches_per_epoch());
        let [first, end] = [number, number + 1].map(|number| (number * self.batch_size).min(self.items));
        epoch * self.items + first..epoch * self.items + end
    }

    /// The items of a batch.
    pub fn batch(&self, index: usize) -> Vec<usize> {
        let draws = self.draws(index);
        let epoch = draws.start / self.items;
        let mut last = self.last.borrow_mut();
        if last.0 != epoch {
            *last = (epoch, ordered(self.items, self.seed, epoch));
        }
        last.1[draws.start - epoch * self.items..draws.end - epoch * self.items].to_vec()
    }
}

fn ordered(items: usize, seed: Option<u64>, epoch: usize) -> Vec<usize> {
    seed.map_or_else(|| (0..items).collect(), |seed| permutation(items, seed, epoch as u64))
}
