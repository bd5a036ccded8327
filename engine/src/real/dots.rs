//! Dot products of a few rows with many: a product of matrices that is too narrow to be worth the order that [`gemm`](super::product)
//! brings its operands into.

use pulp::{Simd, WithSimd};

macro_rules! dots_for {
    ($name:ident, $task:ident, $real:ident, $vectors:ident, $split:ident, $splat:ident, $mul_add:ident, $sum:ident) => {
        struct $task<'a> {
            out: &'a mut [$real],
            x: &'a [$real],
            w: &'a [$real],
            k: usize,
        }

        impl WithSimd for $task<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                // Sixteen sums and what they are made of fit where there are 32 vector registers, eight where there are 16.
                if size_of::<S::$vectors>() == 64 { self.tiled::<S, 4>(simd) } else { self.tiled::<S, 2>(simd) }
            }
        }

        impl $task<'_> {
            #[inline(always)]
            fn tiled<S: Simd, const W: usize>(self, simd: S) {
                const X: usize = 4;
                let (rows, m) = (self.w.len() / self.k, self.x.len() / self.k);
                let Self { out, x, w, k } = self;
                for row in (0..rows / W * W).step_by(W) {
                    let out = &mut out[row * m..];
                    let whole = m / X * X;
                    (0..whole).step_by(X).for_each(|at| Self::tile::<S, W, X>(simd, out, m, at, &x[at * k..], &w[row * k..], k));
                    (whole..m).for_each(|at| Self::tile::<S, W, 1>(simd, out, m, at, &x[at * k..], &w[row * k..], k));
                }
                for row in rows / W * W..rows {
                    (0..m).for_each(|at| Self::tile::<S, 1, 1>(simd, &mut out[row * m..], m, at, &x[at * k..], &w[row * k..], k));
                }
            }

            /// Those of W rows of w and X of x, from place `at` on in W rows of `out`. Each is summed in one order, whatever the tile.
            #[inline(always)]
            fn tile<S: Simd, const W: usize, const X: usize>(
                simd: S,
                out: &mut [$real],
                m: usize,
                at: usize,
                x: &[$real],
                w: &[$real],
                k: usize,
            ) {
                let x: [_; X] = std::array::from_fn(|row| S::$split(&x[row * k..][..k]));
                let w: [_; W] = std::array::from_fn(|row| S::$split(&w[row * k..][..k]));
                let count = w[0].0.len();
                let x_vectors: [&[S::$vectors]; X] = x.map(|(vectors, _)| &vectors[..count]);
                let w_vectors: [&[S::$vectors]; W] = w.map(|(vectors, _)| &vectors[..count]);
                let mut sums = [[simd.$splat(0.0); X]; W];
                for place in 0..count {
                    let w: [S::$vectors; W] = std::array::from_fn(|row| w_vectors[row][place]);
                    for column in 0..X {
                        let x = x_vectors[column][place];
                        for row in 0..W {
                            sums[row][column] = simd.$mul_add(w[row], x, sums[row][column]);
                        }
                    }
                }
                for row in 0..W {
                    for column in 0..X {
                        let rest = w[row].1.iter().zip(x[column].1);
                        out[row * m + at + column] = rest.fold(simd.$sum(sums[row][column]), |sum, (w, x)| sum + w * x);
                    }
                }
            }
        }

        /// [`Real::dots`](super::Real::dots).
        pub fn $name(out: &mut [$real], x: &[$real], w: &[$real], k: usize) {
            if k == 0 {
                return out.fill(0.0);
            }
            let fits = x.len().is_multiple_of(k) && w.len().is_multiple_of(k) && out.len() == (x.len() / k) * (w.len() / k);
            assert!(fits, "[dots] expected rows of {k}, got {} and {} elements for {}", x.len(), w.len(), out.len());
            pulp::Arch::new().dispatch($task { out, x, w, k });
        }
    };
}
dots_for!(dots_f32, Dots32, f32, f32s, as_simd_f32s, splat_f32s, mul_add_f32s, reduce_sum_f32s);
dots_for!(dots_f64, Dots64, f64, f64s, as_simd_f64s, splat_f64s, mul_add_f64s, reduce_sum_f64s);

#[cfg(test)]
mod tests {
    use crate::real::Real;

    #[test]
    fn dots_are_those_of_every_pair_and_the_same_bits_whichever_rows_stand_beside() {
        for (m, rows, k) in [(1, 1, 1), (2, 3, 15), (5, 7, 64), (9, 6, 257), (4, 8, 16)] {
            let numbers = |count: usize| (0..count).map(|at| (at as f32 * 0.7).sin()).collect::<Vec<f32>>();
            let (x, w) = (numbers(m * k), numbers(rows * k));
            let dots = |x: &[f32], w: &[f32]| {
                let mut out = vec![f32::NAN; x.len() / k * (w.len() / k)];
                f32::dots(&mut out, x, w, k);
                out
            };
            let all = dots(&x, &w);
            for (row, w) in w.chunks_exact(k).enumerate() {
                for (column, x) in x.chunks_exact(k).enumerate() {
                    let got = all[row * m + column];
                    assert_eq!(got.to_bits(), dots(x, w)[0].to_bits(), "{m} x {rows} x {k}");
                    let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    // A rounding a term, of terms up to 1.
                    assert!((f64::from(got) - exact).abs() <= k as f64 * f64::from(f32::EPSILON), "{got}, expected {exact}");
                }
            }
        }
    }
}
