//! One pass over rows that are tuned in different ways. They share every product with the model's own weights; what a way of tuning
//! adds is computed for its rows alone.

use std::ops::Range;
use std::sync::Arc;

use wgtune_engine::Tensor;

use crate::nn::{Embedding, Linear, Tuning, joined, rows_of};

/// So many rows that stand together, and what tunes them.
pub type Group = (usize, Arc<dyn Tuning>);

/// The rows of a pass, group by group.
pub struct Mixed {
    groups: Vec<Group>,
    /// Their virtual tokens.
    tables: Vec<Tensor>,
    /// How many virtual tokens are before those of each group.
    before: Vec<usize>,
}

impl Mixed {
    /// What tunes a pass over these rows; what a single group is tuned by, if there is no other.
    pub fn of(groups: Vec<Group>) -> Arc<dyn Tuning> {
        if let [(_, tuning)] = &groups[..] {
            return tuning.clone();
        }
        let tables: Vec<Option<Tensor>> = groups.iter().map(|(_, tuning)| tuning.virtual_tokens()).collect();
        let mut count = 0;
        let before = tables.iter().map(|table| {
            let before = count;
            count += table.as_ref().map_or(0, |table| table.size(0));
            before
        });
        let before = before.collect();
        Arc::new(Mixed { groups, tables: tables.into_iter().flatten().collect(), before })
    }

    /// The groups, with the rows of each.
    fn groups(&self) -> impl Iterator<Item = (Range<usize>, &dyn Tuning)> {
        let mut first = 0;
        self.groups.iter().map(move |(count, tuning)| {
            let rows = first..first + count;
            first = rows.end;
            (rows, &**tuning)
        })
    }

    /// The group of a row, and its place in its group.
    fn group_of(&self, row: usize) -> (usize, usize) {
        let mut left = row;
        for (index, (count, _)) in self.groups.iter().enumerate() {
            if left < *count {
                return (index, left);
            }
            left -= count;
        }
        panic!("[Mixed] expected one of {} rows, got row {row}", row - left)
    }

    /// What `change` makes of each group's rows, where it makes anything of any; those of the others are rows of x.
    fn changed(&self, x: &Tensor, change: impl Fn(&Range<usize>, &dyn Tuning) -> Option<Tensor>) -> Option<Tensor> {
        let changed: Vec<(Range<usize>, Option<Tensor>)> =
            self.groups().map(|(rows, tuning)| (rows.clone(), change(&rows, tuning))).collect();
        let is_any = changed.iter().any(|(_, tensor)| tensor.is_some());
        let whole = |(rows, tensor): (Range<usize>, Option<Tensor>)| tensor.unwrap_or_else(|| rows_of(x, &rows));
        is_any.then(|| joined(changed.into_iter().map(whole).collect()))
    }
}

impl Tuning for Mixed {
    fn embedding(&self, layer: &Embedding, ids: &Tensor, x: &Tensor) -> Option<Tensor> {
        self.changed(x, |rows, tuning| tuning.embedding(layer, &rows_of(ids, rows), &rows_of(x, rows)))
    }

    fn enter(&self, layer: &Linear, x: &Tensor) -> Option<Tensor> {
        self.changed(x, |rows, tuning| tuning.enter(layer, &rows_of(x, rows)))
    }

    fn leave(&self, layer: &Linear, x: &Tensor, y: &Tensor) -> Option<Tensor> {
        self.changed(y, |rows, tuning| tuning.leave(layer, &rows_of(x, rows), &rows_of(y, rows)))
    }

    fn sublayer(&self, path: &str, sublayer: &str, y: &Tensor) -> Option<Tensor> {
        self.changed(y, |rows, tuning| tuning.sublayer(path, sublayer, &rows_of(y, rows)))
    }

    fn virtual_tokens(&self) -> Option<Tensor> {
        (!self.tables.is_empty()).then(|| joined(self.tables.clone()))
    }

    fn virtual_tokens_before(&self, row: usize) -> usize {
        self.before[self.group_of(row).0]
    }

    fn prefix_length(&self, row: usize) -> usize {
        let (group, row) = self.group_of(row);
        self.groups[group].1.prefix_length(row)
    }

    fn prefixes(&self, layer: usize, _: usize) -> Vec<(usize, Option<[Tensor; 2]>)> {
        self.groups.iter().flat_map(|(count, tuning)| tuning.prefixes(layer, *count)).collect()
    }
}
