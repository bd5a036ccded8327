//! The arithmetic that CPU twins are written in: f32 to run, f64 to check.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

mod dots;
mod product;

use dots::{dots_f32, dots_f64};
use product::{gemm_f32, gemm_f64};

pub use product::{Matrix, Threads};

/// A floating-point type that a CPU twin can run in.
pub trait Real:
    bytemuck::Pod
    + PartialOrd
    + Debug
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The nearest value.
    fn from_f64(value: f64) -> Self;
    /// The nearest value.
    fn from_f32(value: f32) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Rounded where it must be.
    fn to_f32(self) -> f32;
    /// e^x.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// The sine of an angle in radians.
    fn sin(self) -> Self;
    /// The cosine of an angle in radians.
    fn cos(self) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;
    /// self * factor + term, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger; NaN if either is.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }
    /// The smaller; NaN if either is.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if self < other || self.is_nan() { self } else { other }
    }
    /// Whether it is not a number.
    #[inline(always)]
    #[allow(clippy::eq_op)] // NaN is the one value that differs from itself
    fn is_nan(self) -> bool {
        self != self
    }
    /// 1 / (1 + e^-x), without overflow.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let small = (-self.abs()).exp();
        (if self < Self::ZERO { small } else { Self::ONE }) / (Self::ONE + small)
    }
    /// `c = alpha * c + beta * a b`: c is m x n, a is m x k, b is k x n; each slice starts at its first element and is walked by
    /// its (row, column) strides. With `alpha` 0 the old c is not read.
    fn gemm(
        size: [usize; 3],
        scales: [Self; 2],
        c: Matrix<&mut [Self]>,
        a: Matrix<&[Self]>,
        b: Matrix<&[Self]>,
        threads: Threads,
    );
    /// out [R, M] = w x^T, of dense rows x [M, k] and w [R, k], on the calling thread. An element has the bits that it has alone.
    fn dots(out: &mut [Self], x: &[Self], w: &[Self], k: usize);
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    /// Cephes' expf (Moshier): e^x = 2^n e^r with |r| <= ln(2)/2 and a polynomial for e^r. Branch-free, so that loops over it
    /// become vector instructions; within 2 units in the last place.
    #[inline(always)]
    fn exp(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, which the lowest bits of the sum then hold
        let x = self.clamp(-104.0, 89.0);
        let rounded = x * std::f32::consts::LOG2_E + ROUND;
        let n = rounded - ROUND;
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let e =
            polynomial(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]) * r * r + r + 1.0;
        // 2^n in two factors, since n reaches past both ends of the exponent's range.
        let n = rounded.to_bits() as i32 - ROUND.to_bits() as i32;
        let half = n >> 1;
        e * power_of_two(half) * power_of_two(n - half)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    /// Cephes' tanhf: an odd polynomial near 0, the exponential elsewhere.
    #[inline(always)]
    fn tanh(self) -> Self {
        let z = self * self;
        let near =
            polynomial(z, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]) * z * self + self;
        let small = Real::exp(-2.0 * self.abs());
        let far = ((1.0 - small) / (1.0 + small)).copysign(self);
        if self.abs() < 0.625 { near } else { far }
    }
    /// A quotient of polynomials (the one of Eigen and XLA): within a few units in the last place. Branch-free.
    #[inline(always)]
    fn erf(self) -> Self {
        const LAST: f32 = 3.919_206; // erf is 1 from here on
        let x = self.clamp(-LAST, LAST);
        let z = x * x;
        let over = polynomial(
            z,
            [-2.726_142_3e-10, 2.770_681_5e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2],
        );
        let under = polynomial(z, [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2]);
        if self.abs() < LAST { x * over / under } else { x / LAST }
    }
    #[inline(always)]
    fn sin(self) -> Self {
        f32::sin(self)
    }
    #[inline(always)]
    fn cos(self) -> Self {
        f32::cos(self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        f32::mul_add(self, factor, term)
    }
    fn gemm(
        size: [usize; 3],
        scales: [Self; 2],
        c: Matrix<&mut [Self]>,
        a: Matrix<&[Self]>,
        b: Matrix<&[Self]>,
        threads: Threads,
    ) {
        gemm_f32(size, scales, c, a, b, threads);
    }
    fn dots(out: &mut [Self], x: &[Self], w: &[Self], k: usize) {
        dots_f32(out, x, w, k);
    }
}

/// By Horner's rule, the highest power's coefficient first.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for &coefficient in &coefficients[1..] {
        sum = sum * x + coefficient;
    }
    sum
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn from_f64(value: f64) -> Self {
        value
    }
    fn from_f32(value: f32) -> Self {
        value as f64
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn exp(self) -> Self {
        f64::exp(self)
    }
    fn ln(self) -> Self {
        f64::ln(self)
    }
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    fn tanh(self) -> Self {
        f64::tanh(self)
    }
    fn erf(self) -> Self {
        libm::erf(self)
    }
    fn sin(self) -> Self {
        f64::sin(self)
    }
    fn cos(self) -> Self {
        f64::cos(self)
    }
    fn abs(self) -> Self {
        f64::abs(self)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        f64::mul_add(self, factor, term)
    }
    fn gemm(
        size: [usize; 3],
        scales: [Self; 2],
        c: Matrix<&mut [Self]>,
        a: Matrix<&[Self]>,
        b: Matrix<&[Self]>,
        threads: Threads,
    ) {
        gemm_f64(size, scales, c, a, b, threads);
    }
    fn dots(out: &mut [Self], x: &[Self], w: &[Self], k: usize) {
        dots_f64(out, x, w, k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_tanh_and_erf_stay_within_a_few_units_in_the_last_place_over_the_whole_range() {
        for step in -200_000..=200_000 {
            let x = step as f32 * 5e-4;
            let (exact, got) = ((x as f64).exp(), Real::exp(x) as f64);
            if (1.2e-38..3.4e38).contains(&exact) {
                assert!((got / exact - 1.0).abs() < 4.0 * f32::EPSILON as f64, "exp({x}) gave {got}, not {exact}");
            }
            let (exact, got) = ((x as f64).tanh(), Real::tanh(x) as f64);
            assert!((got - exact).abs() <= 4.0 * f32::EPSILON as f64 * exact.abs(), "tanh({x}) gave {got}, not {exact}");
            let (exact, got) = (libm::erf(x as f64), Real::erf(x) as f64);
            assert!((got - exact).abs() <= 4.0 * f32::EPSILON as f64 * exact.abs(), "erf({x}) gave {got}, not {exact}");
        }
        assert_eq!(Real::exp(-1e30f32), 0.0);
        assert!(Real::exp(1e4f32).is_infinite());
        assert_eq!(Real::erf(-1e30f32), -1.0);
        assert!(Real::exp(f32::NAN).is_nan() && Real::erf(f32::NAN).is_nan());
    }
}
