//! Batches of several runs in one pass through the model that they share.

use std::sync::Arc;

use wgtune_engine::Tensor;

use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::nn::{Tuning, rows_of};
use crate::peft::Mixed;
use crate::transformer::{Decoder, Forward, Rows};

/// Rows that are learnt together, and what their loss is the mean of.
pub trait Lesson {
    /// What goes through the model.
    fn rows(&self) -> Rows<'_>;

    /// Tokens, padding not counted.
    fn tokens(&self) -> usize;

    /// How many terms the loss is the sum of.
    fn targets(&self) -> usize;

    /// Tokens that carry a loss.
    fn trained_tokens(&self) -> usize {
        self.targets()
    }
}

impl Lesson for Batch {
    /// Padding stands at the end, where no real token looks, so attention needs no lengths.
    fn rows(&self) -> Rows<'_> {
        let segments = self.is_packed().then_some(&self.segments[..]);
        Rows { count: self.rows, ids: &self.ids, positions: &self.positions, segments }
    }

    fn tokens(&self) -> usize {
        Batch::tokens(self)
    }

    fn targets(&self) -> usize {
        self.trained_tokens()
    }
}

/// Rows, and what tunes them.
pub type Part<'a> = (Rows<'a>, Arc<dyn Tuning>);

/// The hidden states [B, T, H] of each part's rows, as long as they are.
///
/// # Panics
/// As [`Decoder::input`]; packed texts beside rows behind a prefix are refused there too.
#[track_caller]
pub fn hidden(decoder: &Decoder, parts: &[Part], checkpoint_blocks: bool) -> Vec<Tensor> {
    let tuning = Mixed::of(parts.iter().map(|(rows, tuning)| (rows.count, tuning.clone())).collect());
    let forward = Forward { tuning, checkpoint_blocks };
    let pass = |rows: &Rows| decoder.hidden(&decoder.input(rows, &forward), &forward);
    if let [(rows, _)] = parts {
        return vec![pass(rows)];
    }
    let longest = parts.iter().map(|(rows, _)| rows.length()).max().unwrap_or(0);
    let joined = |values: &dyn Fn(&Rows) -> Vec<u32>, filling: u32| -> Vec<u32> {
        let padded = |row: &[u32]| row.iter().copied().chain((row.len()..longest).map(|_| filling)).collect::<Vec<_>>();
        parts
            .iter()
            .flat_map(|(rows, _)| values(rows).chunks(rows.length().max(1)).flat_map(padded).collect::<Vec<_>>())
            .collect()
    };
    let (ids, positions) = (joined(&|rows| rows.ids.to_vec(), 0), joined(&|rows| rows.positions.to_vec(), 0));
    let is_packed = parts.iter().any(|(rows, _)| rows.segments.is_some());
    // A row that is one text is its first, with whatever padding it has, at which no real token looks.
    let of_one = |rows: &Rows| vec![0; rows.ids.len()];
    let segments = is_packed.then(|| joined(&|rows| rows.segments.map_or_else(|| of_one(rows), <[u32]>::to_vec), IGNORE));
    let count = parts.iter().map(|(rows, _)| rows.count).sum();
    let all = pass(&Rows { count, ids: &ids, positions: &positions, segments: segments.as_deref() });
    let mut first = 0;
    let own = |(rows, _): &Part| {
        let own = rows_of(&all, &(first..first + rows.count));
        first += rows.count;
        if rows.length() == longest { own } else { own.slice(1, 0..rows.length()) }
    };
    parts.iter().map(own).collect()
}
