//! Loops of CPU twins: shared out over the cores in an order that does not depend on their number, and compiled for the widest
//! vector instructions that the machine has. The closures that these functions take are `#[inline(always)]`: where the compiler
//! does not inline one, it compiles it for the oldest machine instead.

use rayon::prelude::*;

use crate::real::Real;

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
    rows(
        out,
        1,
        1,
        #[inline(always)]
        |first, _, chunk| work(first, chunk),
    );
}

/// Calls `work(first, rows, chunk)` for consecutive chunks of whole rows of `out`, `width` elements a row. `effort` says how
/// many element-steps one element of the output costs: large for a row that takes a long sum.
pub fn rows<T: Send>(out: &mut [T], width: usize, effort: usize, work: impl Fn(usize, usize, &mut [T]) + Sync) {
    if out.is_empty() {
        return;
    }
    let rows_a_task = (GRAIN / (width * effort).max(1)).max(1);
    let run = |task: usize, chunk: &mut [T]| {
        vectorized(
            #[inline(always)]
            || work(task * rows_a_task, chunk.len() / width, chunk),
        )
    };
    if out.len() <= rows_a_task * width {
        run(0, out);
    } else {
        chunks(out, rows_a_task * width, &run);
    }
}

/// Calls `run(task, chunk)` for chunks of a length. It takes no closure's own type, as the threads' code that it brings along is larger
/// than what most of them do, and would be compiled for each.
fn chunks<T: Send>(out: &mut [T], length: usize, run: &(dyn Fn(usize, &mut [T]) + Sync)) {
    out.par_chunks_mut(length).enumerate().for_each(|(task, chunk)| run(task, chunk));
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
    let run = |task: usize, a: &mut [A], b: &mut [B]| {
        vectorized(
            #[inline(always)]
            || work(task * rows_a_task, a.len() / a_width, a, b),
        )
    };
    chunks_of_two((a, rows_a_task * a_width), (b, rows_a_task * b_width), &run);
}

/// What is run on a task's chunks of two outputs.
type OnTwo<'a, A, B> = dyn Fn(usize, &mut [A], &mut [B]) + Sync + 'a;

/// [`chunks`] of two outputs.
fn chunks_of_two<A: Send, B: Send>((a, a_length): (&mut [A], usize), (b, b_length): (&mut [B], usize), run: &OnTwo<A, B>) {
    let tasks = a.par_chunks_mut(a_length).zip(b.par_chunks_mut(b_length));
    tasks.enumerate().for_each(|(task, (a, b))| run(task, a, b));
}

/// The sum of `part(range)` over consecutive ranges of `0..count`, always cut at the same places and added in order.
pub fn sum(count: usize, part: impl Fn(std::ops::Range<usize>) -> f64 + Sync) -> f64 {
    let mut parts = vec![0.0; count.div_ceil(GRAIN)];
    let run = |task: usize, sum: &mut [f64]| {
        sum[0] = vectorized(
            #[inline(always)]
            || part(task * GRAIN..((task + 1) * GRAIN).min(count)),
        )
    };
    chunks(&mut parts, 1, &run);
    parts.iter().sum()
}

/// Running sums of a row: as many as the widest vector instruction holds.
const LANES: usize = 16;

/// The sum of `f` over a row, in running sums that are added up in a fixed order.
#[inline(always)]
pub fn lane_sum<R: Real>(row: &[R], f: impl Fn(R) -> R) -> R {
    lane_dot(
        row,
        row,
        #[inline(always)]
        |value, _| f(value),
    )
}

/// The sum of `f` over two rows, as [`lane_sum`].
#[inline(always)]
pub fn lane_dot<R: Real, A: Copy, B: Copy>(a: &[A], b: &[B], f: impl Fn(A, B) -> R) -> R {
    // Four vectors of sums hide the latency of an addition.
    const BLOCK: usize = 4 * LANES;
    let ((a_blocks, a_rest), (b_blocks, b_rest)) = (a.as_chunks::<BLOCK>(), b.as_chunks::<BLOCK>());
    let mut sums = [[R::ZERO; LANES]; 4];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for (part, sums) in sums.iter_mut().enumerate() {
            for lane in 0..LANES {
                sums[lane] += f(a[part * LANES + lane], b[part * LANES + lane]);
            }
        }
    }
    let add = |a, b| a + b;
    let [s0, s1, s2, s3] = sums;
    let sum = halved(each(each(s0, s1, add), each(s2, s3, add), add), add);
    a_rest.iter().zip(b_rest).fold(sum, |sum, (&a, &b)| sum + f(a, b))
}

/// Writes `f` of every element of a row, and gives their sum, as [`lane_sum`].
#[inline(always)]
pub fn lane_map<R: Real>(out: &mut [R], row: &[R], f: impl Fn(R) -> R) -> R {
    let ((out_blocks, out_rest), (blocks, rest)) = (out.as_chunks_mut(), row.as_chunks());
    let mut sums = [R::ZERO; LANES];
    for (out, block) in out_blocks.iter_mut().zip(blocks) {
        *out = each(*block, *block, |value, _| f(value));
        sums = each(sums, *out, |sum, value| sum + value);
    }
    let mut sum = halved(sums, |a, b| a + b);
    for (out, &value) in out_rest.iter_mut().zip(rest) {
        *out = f(value);
        sum += *out;
    }
    sum
}

/// The largest of a row and of `least`, in running maxima. A NaN may be passed over: the exponentials that follow keep it.
#[inline(always)]
pub fn largest<R: Real>(row: &[R], least: R) -> R {
    let more = |a: R, b: R| if b > a { b } else { a };
    let (blocks, rest) = row.as_chunks();
    let mut most = [least; LANES];
    for block in blocks {
        most = each(most, *block, more);
    }
    rest.iter().fold(halved(most, more), |most, &value| more(most, value))
}

/// `f` lane by lane.
#[inline(always)]
fn each<R: Real>(mut a: [R; LANES], b: [R; LANES], f: impl Fn(R, R) -> R) -> [R; LANES] {
    for lane in 0..LANES {
        a[lane] = f(a[lane], b[lane]);
    }
    a
}

/// One value of all lanes: one half with the other, again and again.
#[inline(always)]
fn halved<R: Real>(mut lanes: [R; LANES], f: impl Fn(R, R) -> R) -> R {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}
