//! One row of tokens, and few, through a weight whose rows lie in memory one after the other.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::epilogue::Ending;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Constants, Cost, Data, Epilogue, Io, Kernel, Shader, grid};
use crate::real::Real;

/// y [N] = W [N, K] x [K].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    pub n: u32,
    pub k: u32,
    pub offset: u32,
    pub dtype: u32,
    pub ending: Ending,
}

/// x, W, bias, residual -> y.
pub(super) struct Matvec;

impl Kernel for Matvec {
    type Params = Params;
    const NAME: &'static str = "matvec";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        Shader::new("matvec_row", |p: &Params| grid(p.n as usize, 64)).with(constants),
        Shader::new("matvec_workgroup", |p: &Params| grid(p.n as usize, 1)).with(constants).preferred(|_, traits| !traits.software),
    ];
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        [p.n, p.k, p.dtype]
    }
    const EPILOGUE: Option<&'static Epilogue<Params>> =
        Some(&Epilogue { result: 4, residual: 3, add: |p| p.ending.add(), drop: |p, drops| p.ending.drop(drops) });
    fn cost(p: &Params) -> Cost {
        let (weights, width) = (u64::from(p.n) * u64::from(p.k), if p.dtype == 0 { 4 } else { 2 });
        Cost { flops: 2 * weights, bytes: width * weights + 4 * (u64::from(p.n + p.k) + p.ending.reads(1, p.n.into())) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, bias, residual, y, first) = (io.real(0), io.real(2), io.real(3), io.real_mut(4), p.offset as usize);
        if !p.ending.begin(y, p.n as usize, bias, residual) {
            y.fill(R::ZERO);
        }
        let scale = R::from_f32(p.ending.scale);
        match io.data(1) {
            Data::Real(w) => dot_rows(x, &w[first..], scale, y, #[inline(always)] |w| w),
            Data::F16(w) => dot_rows(x, &w[first..], scale, y, #[inline(always)] |w| R::from_f32(w.to_f32())),
            Data::BF16(w) => dot_rows(x, &w[first..], scale, y, #[inline(always)] |w| R::from_f32(w.to_f32())),
            Data::U32(_) => unreachable!("[matvec] expected a floating-point weight"),
        }
        p.ending.end(y, residual);
    }
}

/// Storage types as shaders number them (`storage.wgsl`).
pub(crate) fn storage(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::U32 => unreachable!("[storage] expected a floating-point type"),
    }
}

fn constants(p: &Params) -> Constants {
    p.ending.constants(false).into_iter().chain([("DTYPE", p.dtype.into())]).collect()
}

/// y += scale * W x.
fn dot_rows<R: Real, W: Copy + Sync>(x: &[R], weight: &[W], scale: R, y: &mut [R], widen: impl Fn(W) -> R + Sync) {
    parallel::rows(
        y,
        1,
        x.len(),
        #[inline(always)]
        |first, _, y| {
            for (row, y) in y.iter_mut().enumerate() {
                let weight = &weight[(first + row) * x.len()..][..x.len()];
                *y += scale * parallel::lane_dot(weight, x, #[inline(always)] |w, x| widen(w) * x);
            }
        },
    );
}

/// How many rows are few: more are better brought into the order of a product of matrices.
pub(super) const FEW: usize = 32;

/// y [M, N] += scale * x W^T, where rows of x and of W are dense and lie so far apart. An element is summed as [`Matvec`] sums it: a
/// row has the bits that it has alone.
pub(super) fn few_rows<R: Real, W: Copy + Sync>(
    y: &mut [R],
    [m, n, k]: [usize; 3],
    scale: R,
    (x, x_apart): (&[R], usize),
    (weight, apart): (&[W], usize),
    widen: impl Fn(W) -> R + Sync,
) {
    let x: Vec<&[R]> = (0..m).map(|row| &x[row * x_apart..][..k]).collect();
    let (fours, rest) = x.as_chunks::<4>();
    let mut turned = vec![R::ZERO; n * m];
    // A row of the weight is read once, and widened once.
    parallel::rows(
        &mut turned,
        m,
        k.div_ceil(m),
        #[inline(always)]
        |first, _, turned| {
            let mut wide = vec![R::ZERO; k];
            for (at, out) in turned.chunks_exact_mut(m).enumerate() {
                wide.iter_mut().zip(&weight[(first + at) * apart..][..k]).for_each(|(wide, &w)| *wide = widen(w));
                let (out_fours, out_rest) = out.as_chunks_mut::<4>();
                for (x, out) in fours.iter().zip(out_fours) {
                    *out = parallel::lane_dots(&wide, *x, #[inline(always)] |w, x| w * x);
                }
                for (x, out) in rest.iter().zip(out_rest) {
                    *out = parallel::lane_dot(&wide, x, #[inline(always)] |w, x| w * x);
                }
            }
        },
    );
    // Of all rows so many columns at a time that what is read across stays in a cache.
    const COLUMNS: usize = 128;
    let rows_a_task = m.div_ceil(rayon::current_num_threads());
    y.par_chunks_mut(rows_a_task * n).enumerate().for_each(|(task, y)| {
        for first in (0..n).step_by(COLUMNS) {
            for (row, y) in y.chunks_exact_mut(n).enumerate() {
                let columns = turned[first * m..].chunks_exact(m);
                for (y, column) in y[first..].iter_mut().take(COLUMNS).zip(columns) {
                    *y += scale * column[task * rows_a_task + row];
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::{DType, Device, ops};

    #[test]
    fn few_rows_have_the_bits_that_each_has_alone() {
        let device = Device::cpu();
        let numbers = |count: usize| (0..count).map(|at| (at as f32 * 0.7).sin()).collect::<Vec<f32>>();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for [m, n, k] in [[2, 70, 100], [7, 33, 257], [32, 300, 64]] {
                let x = device.tensor(&numbers(m * k), [m, k]);
                let weight = ops::cast(&device.tensor(&numbers(n * k), [n, k]), dtype);
                let together = ops::linear(&x, &weight).to_vec().unwrap();
                for (row, together) in together.chunks_exact(n).enumerate() {
                    let alone = ops::linear(&x.slice(0, row..row + 1), &weight).to_vec().unwrap();
                    assert!(alone == together, "row {row} of {m} x {n} x {k} in {dtype:?}");
                }
            }
        }
    }
}
