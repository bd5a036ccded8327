//! Products of matrices: what of them a core gets, and the `gemm` crate, which computes it.

use rayon::prelude::*;

/// A slice and the (row, column) strides that walk it.
pub type Matrix<S> = (S, [usize; 2]);

/// Whether a product may be shared out over the cores: `One` inside a loop that already is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// On the calling thread.
    One,
    /// On all cores.
    All,
}

/// How a product is cut into pieces of c that the cores take side by side, and how many threads each piece has.
struct Pieces {
    rows: usize,
    columns: usize,
    threads: usize,
}

impl Pieces {
    /// Pieces of whole rows where a is dense along them and there are as many as columns, of whole columns otherwise: each core
    /// then brings a part of one operand of its own into order. Measured with gemm 0.19 on two cores: 1.05 to 1.7 times as fast
    /// as one product that both share.
    fn of([m, n, k]: [usize; 3], a_is_dense_along_m: bool, threads: Threads) -> Pieces {
        /// Rows or columns that keep a core busy.
        const LEAST: usize = 64;
        /// Their number is a multiple of it: of the elements of a vector.
        const MULTIPLE: usize = 16;
        let threads = match threads {
            Threads::All if m * n * k > gemm::get_threading_threshold() => rayon::current_num_threads(),
            _ => 1,
        };
        let by_rows = a_is_dense_along_m && m >= n;
        let whole = if by_rows { m } else { n };
        let count = (1..=threads).rev().find(|count| threads.is_multiple_of(*count) && whole / count >= LEAST).unwrap_or(1);
        let part = whole.div_ceil(count).next_multiple_of(MULTIPLE).min(whole);
        let (rows, columns) = if by_rows { (part, n) } else { (m, part) };
        Pieces { rows, columns, threads: threads / count }
    }
}

/// A pointer that threads may share, whatever it points to: they keep apart what they do with it.
#[derive(Clone, Copy)]
struct Shared<T>(T);

#[allow(unsafe_code)] // columns of a row-major slice cannot be lent to threads in safe code
// SAFETY: `gemm_for` reads from behind two of them, and writes disjoint pieces behind the third.
unsafe impl<T> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn get(&self) -> T {
        self.0
    }
}

macro_rules! gemm_for {
    ($name:ident, $real:ty) => {
        /// [`Real::gemm`](super::Real::gemm). The one place that hands slices to the `gemm` crate.
        #[allow(unsafe_code)] // that crate works on raw pointers
        pub fn $name(
            [m, n, k]: [usize; 3],
            [alpha, beta]: [$real; 2],
            (c, cs): Matrix<&mut [$real]>,
            (a, a_strides): Matrix<&[$real]>,
            (b, bs): Matrix<&[$real]>,
            threads: Threads,
        ) {
            if m == 0 || n == 0 {
                return;
            }
            let last = |rows: usize, columns: usize, strides: [usize; 2]| (rows - 1) * strides[0] + (columns - 1) * strides[1];
            assert!(last(m, n, cs) < c.len(), "[gemm] expected an output that holds {m} x {n}, got {}", c.len());
            let apart = cs[0].min(cs[1]) > 0 && (cs[0] >= n * cs[1] || cs[1] >= m * cs[0]);
            assert!(apart, "[gemm] expected an output whose elements lie apart, got {cs:?}");
            assert!(
                k == 0 || last(m, k, a_strides) < a.len(),
                "[gemm] expected a left side that holds {m} x {k}, got {}",
                a.len()
            );
            assert!(k == 0 || last(k, n, bs) < b.len(), "[gemm] expected a right side that holds {k} x {n}, got {}", b.len());
            let pieces = Pieces::of([m, n, k], a_strides[0] == 1 && a_strides[1] != 1, threads);
            let parallelism = match pieces.threads {
                1 => gemm::Parallelism::None,
                threads => gemm::Parallelism::Rayon(threads),
            };
            let (c, a, b) = (Shared(c.as_mut_ptr()), Shared(a.as_ptr()), Shared(b.as_ptr()));
            let product = |row: usize, column: usize| {
                let (rows, columns) = (pieces.rows.min(m - row), pieces.columns.min(n - column));
                // SAFETY: the asserts above bound every element that the strides can reach and keep those of c apart; c is
                // borrowed mutably, and no two pieces have an element of it in common.
                unsafe {
                    gemm::gemm(
                        rows,
                        columns,
                        k,
                        c.get().add(row * cs[0] + column * cs[1]),
                        cs[1] as isize,
                        cs[0] as isize,
                        alpha != 0.0,
                        a.get().add(row * a_strides[0]),
                        a_strides[1] as isize,
                        a_strides[0] as isize,
                        b.get().add(column * bs[1]),
                        bs[1] as isize,
                        bs[0] as isize,
                        alpha,
                        beta,
                        false,
                        false,
                        false,
                        parallelism,
                    );
                }
            };
            match (m.div_ceil(pieces.rows), n.div_ceil(pieces.columns)) {
                (1, 1) => product(0, 0),
                (1, count) => (0..count).into_par_iter().with_max_len(1).for_each(|at| product(0, at * pieces.columns)),
                (count, _) => (0..count).into_par_iter().with_max_len(1).for_each(|at| product(at * pieces.rows, 0)),
            }
        }
    };
}
gemm_for!(gemm_f32, f32);
gemm_for!(gemm_f64, f64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::Real;

    #[test]
    fn a_product_has_the_same_bits_on_any_number_of_cores() {
        let numbers = |count: usize| (0..count).map(|at| (at as f32 * 0.7).sin()).collect::<Vec<f32>>();
        // Cut by columns and by rows, into pieces that come out even and not, and too narrow to be cut.
        for [m, n, k] in [[70, 515, 100], [515, 70, 100], [300, 300, 40], [1000, 30, 100]] {
            let (a, b) = (numbers(m * k), numbers(k * n));
            for (a_strides, b_strides) in [([k, 1], [n, 1]), ([k, 1], [1, k]), ([1, m], [n, 1])] {
                let product = |threads| {
                    let mut c = vec![f32::NAN; m * n];
                    f32::gemm([m, n, k], [0.0, 1.5], (&mut c, [n, 1]), (&a, a_strides), (&b, b_strides), threads);
                    c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let alone = product(Threads::One);
                for cores in [1, 2, 3, 8] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(cores).build().unwrap();
                    assert!(pool.install(|| product(Threads::All)) == alone, "{m} x {n} x {k} on {cores} cores");
                }
            }
        }
    }
}
