//! Loops of CPU twins: shared out over the cores in an order that does not depend on their number, and compiled for the widest
//! vector instructions that the machine has.

use rayon::prelude::*;

/// Elements that are worth a task of their own: some ten microseconds of work.
const GRAIN: usize = 16 * 1024;

/// Compiles `work` for each of the machine's vector instructions and chooses at run time. Debug builds compile it once: three times
/// takes long, and gives the same numbers.
#[inline(always)]
pub fn vectorized<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(debug_assertions)]
    return work();
    #[cfg(not(debug_assertions))]
    pulp::Arch::new().dispatch(work)
}

/// Calls `work(first, chunk)` for consecutive chunks of `out`; `first` is the index of the chunk's first element.
pub fn elements<T: Send>(out: &mut [T], work: impl Fn(usize, &mut [T]) + Sync) {
    rows(out, 1, 1, |first, _, chunk| work(first, chunk));
}

/// Calls `work(first, rows, chunk)` for consecutive chunks of whole rows of `out`, `width` elements a row. `effort` says how
/// many element-steps one element of the output costs: large for a row that takes a long sum.
pub fn rows<T: Send>(out: &mut [T], width: usize, effort: usize, work: impl Fn(usize, usize, &mut [T]) + Sync) {
    if out.is_empty() {
        return;
    }
    let rows_a_task = (GRAIN / (width * effort).max(1)).max(1);
    let run = |(task, chunk): (usize, &mut [T])| vectorized(|| work(task * rows_a_task, chunk.len() / width, chunk));
    if out.len() <= rows_a_task * width {
        run((0, out));
    } else {
        out.par_chunks_mut(rows_a_task * width).enumerate().for_each(run);
    }
}

/// [`rows`] over two outputs of as many rows: `work(first, rows, chunk_a, chunk_b)`.
pub fn rows_of_two<A: Send, B: Send>(
    (a, a_width): (&mut [A], usize),
    (b, b_width): (&mut [B], usize),
    effort: usize,
    work: impl Fn(usize, usize, &mut [A], &mut [B]) + Sync,
) {
    if a.is_empty() || b.is_empty() {
        return;
    }
    let rows_a_task = (GRAIN / (a_width.max(b_width) * effort).max(1)).max(1);
    let tasks = a.par_chunks_mut(rows_a_task * a_width).zip(b.par_chunks_mut(rows_a_task * b_width));
    tasks.enumerate().for_each(|(task, (a, b))| vectorized(|| work(task * rows_a_task, a.len() / a_width, a, b)));
}

/// The sum of `part(range)` over consecutive ranges of `0..count`, always cut at the same places and added in order.
pub fn sum(count: usize, part: impl Fn(std::ops::Range<usize>) -> f64 + Sync) -> f64 {
    let parts: Vec<f64> = (0..count.div_ceil(GRAIN))
        .into_par_iter()
        .map(|task| vectorized(|| part(task * GRAIN..((task + 1) * GRAIN).min(count))))
        .collect();
    parts.iter().sum()
}

/// The sum of `f` over a row, in sixteen running sums that vector instructions can hold, added up in order.
#[inline(always)]
pub fn lane_sum<R: crate::real::Real>(row: &[R], f: impl Fn(R) -> R) -> R {
    let mut lanes = [R::ZERO; 16];
    let blocks = row.chunks_exact(16);
    let rest = blocks.remainder().iter().fold(R::ZERO, |sum, &value| sum + f(value));
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &value)| *lane += f(value));
    }
    lanes.into_iter().fold(rest, |sum, lane| sum + lane)
}

/// The largest of a row and of `least`, in sixteen running maxima that vector instructions can hold. A NaN may be passed over:
/// the exponentials that follow keep it.
#[inline(always)]
pub fn largest<R: crate::real::Real>(row: &[R], least: R) -> R {
    let more = |a: R, b: R| if b > a { b } else { a };
    let mut lanes = [least; 16];
    let blocks = row.chunks_exact(16);
    let rest = blocks.remainder().iter().fold(least, |most, &value| more(most, value));
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &value)| *lane = more(*lane, value));
    }
    lanes.into_iter().fold(rest, more)
}
