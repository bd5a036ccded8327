//! The kernel of a product, in two forms: one writes its result, and one adds it to what is there.

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::params::Params;
use super::{bands, halves, parts, storage};
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Constants, Cost, Data, Epilogue, Halves, Io, Kernel, Lowering, Shader, Target, Traits};
use crate::real::{Matrix, Real, Threads};

/// a, b, bias, residual -> y, and behind it what a and b were multiplied by, where they are [`halves`]. With `UPDATE`, y += scale * a b, and
/// there is neither bias nor residual.
pub(super) struct Product<const UPDATE: bool>;

pub(super) type Matmul = Product<false>;
pub(super) type MatmulAccumulate = Product<true>;

/// The longest sums that an invocation of the emulation can loop over on llvmpipe ([`Traits::loop_fits`]).
const LONGEST_EMULATED: u32 = 512;

impl<const UPDATE: bool> Kernel for Product<UPDATE> {
    type Params = Params;
    const NAME: &'static str = if UPDATE { "matmul_accumulate" } else { "matmul" };
    const ACCESS: &'static [Access] = &[
        Access::Read,
        Access::Read,
        Access::Read,
        Access::Read,
        if UPDATE { Access::Update } else { Access::Write },
        Access::Read,
        Access::Read,
    ];
    const SHADERS: &'static [Shader<Params>] = &[
        shader::<UPDATE>("matmul_blocked", |p| p.tiles(8, 256)).written_for(Target::Software),
        shader::<UPDATE>("matmul_subgroup", |p| p.columns_of_tiles(32, 64)).written_for(Target::Software).allowed(in_subgroups),
        shader::<UPDATE>("matmul_subgroup_8", |p| p.columns_of_tiles(8, 64))
            .written_for(Target::Software)
            .allowed(in_subgroups)
            .preferred(|p, _| p.m <= 16),
        shader::<UPDATE>("matmul_tile_any", |p| p.tiles(64, 64)).allowed(in_tiles).preferred(is_real),
        tile::<UPDATE>("matmul_tile_32x16", |p| p.tiles(32, 16)).preferred(is_best::<32, 16>),
        tile::<UPDATE>("matmul_tile_32", |p| p.tiles(32, 32)).preferred(is_best::<32, 32>),
        tile::<UPDATE>("matmul_tile_64", |p| p.tiles(64, 64)).preferred(is_best::<64, 64>),
        tile::<UPDATE>("matmul_tile_128", |p| p.tiles(128, 128)).preferred(is_best::<128, 128>),
        matrices_16::<UPDATE>("matmul_matrix_16_32", |p| p.tiles(32, 32)).preferred(|p, traits| p.tile(traits) == [32, 32]),
        matrices_16::<UPDATE>("matmul_matrix_16_64", |p| p.tiles(64, 64)).preferred(|p, traits| p.tile(traits) == [64, 64]),
        matrices_16::<UPDATE>("matmul_matrix_16_64x128", |p| p.tiles(64, 128)).preferred(|p, traits| p.tile(traits) == [64, 128]),
        matrices_16::<UPDATE>("matmul_matrix_16", |p| p.tiles(128, 128)).preferred(|p, traits| p.tile(traits) == [128, 128]),
        shader::<UPDATE>("matmul_matrix_8", |p| p.tiles(64, 64))
            .written_for(Target::Halves(Halves::Matrices8))
            .allowed(in_halves),
        shader::<UPDATE>("matmul_matrix_emulated", |p| p.tiles(32, 128))
            .written_for(Target::Halves(Halves::Emulated))
            .allowed(|p, traits| in_halves(p, traits) && p.k <= LONGEST_EMULATED)
            .preferred(|_, _| false),
    ];
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        let lie = [p.a, p.b].into_iter().flat_map(|side| [side.row, side.column, side.dtype]);
        [p.m, p.n, p.k, p.outer, p.inner, p.turned, p.is_in_vectors().into()].into_iter().chain(lie)
    }
    const EPILOGUE: Option<&'static Epilogue<Params>> = if UPDATE {
        None
    } else {
        Some(&Epilogue {
            result: 4,
            residual: 3,
            shared: |p| [p.m, p.n, p.outer * p.inner, p.turned],
            add: |p| p.ending.add(),
            drop: |p, drops| p.ending.drop(drops),
        })
    };
    /// What is too large is read in bands. What is narrow is turned for adapters on the CPU; on others long sums are cut. Where products
    /// take f16, an operand is brought into its range: gradients can be too small for it, and activations, a few of whose elements are
    /// thousands of times larger than all others, too large.
    fn lower(p: &Params, buffers: &[BufferRef], into: &mut Lowering) {
        if bands::result_lowered::<Self>(p, buffers, into) || !UPDATE && bands::lowered(p, buffers, into) {
            return;
        }
        let (mut lowered, mut buffers) = (*p, buffers.to_vec());
        if into.traits.software && p.b.dtype == 0 && p.is_narrow() {
            buffers.swap(0, 1);
            lowered = p.turn();
        }
        let parts = if UPDATE { 1 } else { p.parts(into.traits) };
        if into.traits.halves.is_some() && lowered.in_parts(parts).suits_halves() {
            let Params { m, n, k, outer, inner, .. } = lowered;
            let sides = [(&mut lowered.a, [outer, inner, m, k]), (&mut lowered.b, [outer, inner, k, n])];
            for (at, (side, sizes)) in sides.into_iter().enumerate().filter(|(_, (side, _))| side.dtype != storage(DType::F16)) {
                [buffers[at], buffers[5 + at]] = halves::lowered(buffers[at], side.reached(sizes), side, into);
            }
            // What is not read is not to be in the way of anything.
            for (at, is_there) in [(2, p.ending.has_bias), (3, p.ending.has_residual)] {
                buffers[at] = if is_there == 1 { buffers[at] } else { buffers[0] };
            }
        }
        match parts {
            1 if !lowered.is_of_halves() && lowered.turned == p.turned => {}
            1 => into.dispatch::<Self>(lowered, &buffers),
            _ => parts::lowered(&lowered, &buffers, parts, into),
        }
    }
    fn cost(p: &Params) -> Cost {
        let [m, n, k, batches] = [p.m, p.n, p.k, p.outer * p.inner].map(u64::from);
        let written = (1 + u64::from(UPDATE)) * batches * m * n;
        let [a, b] = [p.a, p.b].map(|side| if side.dtype == 0 { 4 } else { 2 });
        let bytes = batches * k * (a * m + b * n) + 4 * (written + p.ending.reads(batches * m, n));
        Cost { flops: 2 * batches * m * n * k, bytes }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (p, a, b) = match p.turned {
            0 => (p, io.real(0), io.data(1)),
            _ => (&p.turn(), io.real(1), io.data(0)),
        };
        let (bias, residual, y) = (io.real(2), io.real(3), io.real_mut(4));
        let [m, n, k] = [p.m, p.n, p.k].map(|size| size as usize);
        if y.is_empty() {
            return;
        }
        let begun = UPDATE || p.ending.begin(y, n, bias, residual);
        let scales = [if begun { R::ONE } else { R::ZERO }, R::from_f32(p.ending.scale)];
        let product = |batch: usize, y: &mut [R], threads: Threads| match k {
            0 if begun => {}
            0 => y.fill(R::ZERO),
            _ => {
                let size = [m, n, k];
                let (a, strides, start) = ((&a[p.a.start(p, batch)..], p.a.strides()), p.b.strides(), p.b.start(p, batch));
                if m <= FEW && k >= SHORT * m && threads == Threads::All && (a.1, strides) == ([k, 1], [1, k]) {
                    if !begun {
                        y.fill(R::ZERO);
                    }
                    let a = &a.0[..m * k];
                    return match b {
                        Data::Real(b) => few_rows(size, scales[1], y, a, &b[start..][..n * k], as_it_is),
                        Data::F16(b) => few_rows(size, scales[1], y, a, &b[start..][..n * k], widened),
                        Data::BF16(b) => few_rows(size, scales[1], y, a, &b[start..][..n * k], widened),
                        Data::U32(_) => unreachable!("[matmul] expected a floating-point right side"),
                    };
                }
                match b {
                    Data::Real(b) if gains_by_turning::<R>(m, strides) => {
                        gemm_in_blocks(size, scales, y, a, (&b[start..], strides), threads, |from, to| to.copy_from_slice(from));
                    }
                    Data::Real(b) => R::gemm(size, scales, (y, [n, 1]), a, (&b[start..], strides), threads),
                    Data::F16(b) => gemm_in_blocks(size, scales, y, a, (&b[start..], strides), threads, widen),
                    Data::BF16(b) => gemm_in_blocks(size, scales, y, a, (&b[start..], strides), threads, widen),
                    Data::U32(_) => unreachable!("[matmul] expected a floating-point right side"),
                }
            }
        };
        // Many small products are shared out whole; a few large ones each use every core.
        if y.len() / (m * n) >= 2 * rayon::current_num_threads() {
            y.par_chunks_mut(m * n).enumerate().for_each(|(batch, y)| product(batch, y, Threads::One));
        } else {
            y.chunks_mut(m * n).enumerate().for_each(|(batch, y)| product(batch, y, Threads::All));
        }
        p.ending.end(y, residual);
    }
}

/// Up to so many rows are few: with 2 to 32 of 128 terms and more, on two cores, [`Real::dots`] were as fast as gemm 0.19 at the least,
/// and mostly 1.5 to 10 times as fast.
const FEW: usize = 32;
/// Of fewer terms than so many for each row, gemm was the faster, up to 12 times: a sum of few takes longer to be brought together than to
/// be summed.
const SHORT: usize = 4;

/// y [M, N] += scale a b^T, of few dense rows a [M, K] and many b [N, K].
fn few_rows<R: Real, H: Copy + Sync>(
    [m, n, k]: [usize; 3],
    scale: R,
    y: &mut [R],
    a: &[R],
    b: &[H],
    ready: impl Fn(&[H], &mut Vec<R>, &mut dyn FnMut(&[R])) + Sync,
) {
    /// Elements of b for a task: what a core's cache holds.
    const TASK: usize = 1 << 15;
    let rows = (TASK / k).max(1).next_multiple_of(ACROSS);
    let mut dots = vec![R::ZERO; n * m];
    dots.par_chunks_mut(rows * m).zip(b.par_chunks(rows * k)).for_each_init(Vec::new, |wide, (dots, b)| {
        ready(b, wide, &mut |b| R::dots(dots, a, b, k));
    });
    // A part of all rows at a time, so that what is read across stays in a cache.
    let rows_a_task = m.div_ceil(rayon::current_num_threads());
    y.par_chunks_mut(rows_a_task * n).enumerate().for_each(|(task, y)| {
        for first in (0..n).step_by(DOWN) {
            for (row, y) in y.chunks_exact_mut(n).enumerate() {
                let dots = dots[first * m..].chunks_exact(m).map(|dots| dots[task * rows_a_task + row]);
                y[first..].iter_mut().take(DOWN).zip(dots).for_each(|(y, dot)| *y += scale * dot);
            }
        }
    });
}

fn as_it_is<R: Real>(rows: &[R], _: &mut Vec<R>, then: &mut dyn FnMut(&[R])) {
    then(rows);
}

fn widened<R: Real, H>(rows: &[H], wide: &mut Vec<R>, then: &mut dyn FnMut(&[R]))
where
    [H]: HalfFloatSliceExt,
{
    wide.resize(rows.len(), R::ZERO);
    widen(rows, wide);
    then(wide);
}

/// [`Real::gemm`] with a right side that is brought into the order of rows, and widened if it is stored in half the bits, a block of
/// columns at a time: never the whole of it.
fn gemm_in_blocks<R: Real, H: Copy + Sync>(
    [m, n, k]: [usize; 3],
    scales: [R; 2],
    y: &mut [R],
    a: Matrix<&[R]>,
    (b, strides): Matrix<&[H]>,
    threads: Threads,
    widen: impl Fn(&[H], &mut [R]) + Sync,
) {
    /// Elements of a block: what the caches of a few cores hold.
    const BLOCK: usize = 1 << 20;
    let width = (BLOCK / k).max(1).next_multiple_of(ACROSS).min(n);
    let mut block = vec![R::ZERO; width * k];
    for first in (0..n).step_by(width) {
        let columns = width.min(n - first);
        let (b, block) = (&b[first * strides[1]..], &mut block[..columns * k]);
        block.par_chunks_mut(DOWN * columns).enumerate().for_each(|(at, rows)| {
            parallel::vectorized(
                #[inline(always)]
                || copy_rows((b, strides), at * DOWN, columns, rows, &widen),
            );
        });
        R::gemm([m, columns, k], scales, (&mut y[first..], [n, 1]), a, (block, [columns, 1]), threads);
    }
}

/// Rows and columns that are turned at a time.
const DOWN: usize = 64;
const ACROSS: usize = 16;

/// Up to `DOWN` rows of b from `first` on, row by row.
#[inline(always)]
fn copy_rows<R: Real, H: Copy>(
    (b, [down, across]): Matrix<&[H]>,
    first: usize,
    columns: usize,
    rows: &mut [R],
    widen: &impl Fn(&[H], &mut [R]),
) {
    if across == 1 {
        return rows.chunks_exact_mut(columns).enumerate().for_each(|(at, row)| widen(&b[(first + at) * down..][..columns], row));
    }
    let count = rows.len() / columns;
    let (mut gathered, mut tile) = ([b[0]; DOWN], [[R::ZERO; DOWN]; ACROSS]);
    for start in (0..columns).step_by(ACROSS) {
        let width = ACROSS.min(columns - start);
        for (at, column) in tile[..width].iter_mut().enumerate() {
            let from = &b[first * down + (start + at) * across..];
            if down == 1 {
                widen(&from[..count], &mut column[..count]);
            } else {
                gathered[..count].iter_mut().enumerate().for_each(|(row, to)| *to = from[row * down]);
                widen(&gathered[..count], &mut column[..count]);
            }
        }
        for (at, row) in rows.chunks_exact_mut(columns).enumerate() {
            row[start..start + width].iter_mut().zip(&tile).for_each(|(to, column)| *to = column[at]);
        }
    }
}

/// By way of f32, to which halves are converted many at a time.
fn widen<R: Real, H>(halves: &[H], wide: &mut [R])
where
    [H]: HalfFloatSliceExt,
{
    let mut converted = [0.0; 256];
    for (halves, wide) in halves.chunks(256).zip(wide.chunks_mut(256)) {
        halves.convert_to_f32_slice(&mut converted[..halves.len()]);
        wide.iter_mut().zip(converted).for_each(|(wide, value)| *wide = R::from_f32(value));
    }
}

/// Whether a product with b's columns along memory gains by turning them, which costs as much for few rows as for many: where its
/// rows are few, and where columns lie a multiple of 1 KiB apart, so that those that are packed together share a few sets of the
/// cache. Measured with gemm 0.19: 1.1 to 1.5 times as fast with 256 rows, 3 to 5 times with 4 to 64.
fn gains_by_turning<R>(m: usize, [down, across]: [usize; 2]) -> bool {
    down == 1 && across > 1 && (m <= 128 || (across * size_of::<R>()).is_multiple_of(1024))
}

/// One of the variants, before it says where it is of use.
const fn shader<const UPDATE: bool>(source: &'static str, workgroups: fn(&Params) -> [u32; 3]) -> Shader<Params> {
    Shader::new(source, workgroups).with(constants::<UPDATE>)
}

/// One by tiles of operands that lie in whole vectors.
const fn tile<const UPDATE: bool>(source: &'static str, workgroups: fn(&Params) -> [u32; 3]) -> Shader<Params> {
    shader::<UPDATE>(source, workgroups).allowed(in_tiles_of_vectors)
}

/// One by units for matrices of 16 x 16.
const fn matrices_16<const UPDATE: bool>(source: &'static str, workgroups: fn(&Params) -> [u32; 3]) -> Shader<Params> {
    shader::<UPDATE>(source, workgroups).written_for(Target::Halves(Halves::Matrices16)).allowed(in_halves)
}

fn in_subgroups(p: &Params, traits: &Traits) -> bool {
    traits.subgroups.is_some_and(|(least, _)| least >= 8) && p.is_in_vectors()
}

fn in_tiles(p: &Params, traits: &Traits) -> bool {
    traits.loop_fits(p.k)
}

fn in_tiles_of_vectors(p: &Params, traits: &Traits) -> bool {
    in_tiles(p, traits) && p.is_in_vectors()
}

fn in_halves(p: &Params, _: &Traits) -> bool {
    p.suits_halves() && p.is_of_halves()
}

fn is_real(_: &Params, traits: &Traits) -> bool {
    !traits.software
}

fn is_best<const ROWS: u32, const COLUMNS: u32>(p: &Params, traits: &Traits) -> bool {
    !traits.software && p.tile(traits) == [ROWS, COLUMNS]
}

/// Which of a shader's forms suits: what it ends with, how the operands are stored, and the axes along which they are dense.
fn constants<const UPDATE: bool>(p: &Params) -> Constants {
    let operands = [
        ("A_DTYPE", p.a.dtype.into()),
        ("B_DTYPE", p.b.dtype.into()),
        ("A_SCALED", p.a.scaled.into()),
        ("B_SCALED", p.b.scaled.into()),
        ("A_ALONG_K", (p.a.column == 1).into()),
        ("B_ALONG_N", (p.b.column == 1).into()),
        ("TURNED", p.turned.into()),
        ("IN_FOURS", (p.ending.drops.is_any() && p.turned == 0 && p.n.is_multiple_of(4)).into()),
    ];
    p.ending.constants(UPDATE).into_iter().chain(operands).collect()
}
