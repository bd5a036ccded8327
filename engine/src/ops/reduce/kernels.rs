//! The kernels of reductions: of rows, of columns, and of columns whose rows are cut into parts.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Constants, Cost, Io, Kernel, Lowering, Shader, Traits, grid};
use crate::ops::team::{self, Rows};
use crate::real::Real;
use crate::tensor::Tensor;

pub(super) const SUM: u32 = 0;
pub(super) const MAX: u32 = 1;
pub(super) const ARGMAX: u32 = 2;

/// x [outer, length, inner] -> y [outer, parts, inner].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    outer: u32,
    length: u32,
    inner: u32,
    /// Rows of each part of `length`, of which the last may have fewer.
    part: u32,
    operation: u32,
}

impl Params {
    /// All of x, over one axis.
    pub fn new(operation: u32, x: &Tensor, axis: usize) -> Params {
        let shape = x.shape();
        let length = shape[axis] as u32;
        Params {
            outer: shape[..axis].iter().product::<usize>() as u32,
            length,
            inner: shape[axis + 1..].iter().product::<usize>() as u32,
            part: length.max(1),
            operation,
        }
    }

    fn parts(&self) -> u32 {
        self.length.div_ceil(self.part).max(1)
    }

    pub fn outputs(&self) -> u32 {
        self.outer * self.parts() * self.inner
    }

    /// The rows of x, [outer * length, inner], that a row of y is of.
    fn terms(&self, row: usize) -> Range<usize> {
        let [length, part, parts] = [self.length, self.part, self.parts()].map(|size| size as usize);
        let (first, start) = (row / parts * length, row % parts * part);
        first + start..first + (start + part).min(length)
    }

    /// Rows of the parts into which long columns are best cut: all, where what there is without that occupies the device.
    fn best_part(&self, traits: &Traits) -> u32 {
        /// Workgroups that occupy the larger GPUs, and the fewest rows that are worth one.
        const WORKGROUPS: u32 = 512;
        const SHORTEST: u32 = 64;
        let workgroups = self.outputs().div_ceil(COLUMNS).max(1);
        let parts = (WORKGROUPS / workgroups).min(self.length / SHORTEST);
        if traits.software || self.inner == 1 || parts < 2 { self.part } else { self.length.div_ceil(parts) }
    }

    /// The parts, and what becomes of them.
    pub fn in_parts(&self, part: u32) -> [Params; 2] {
        let first = Params { part, ..*self };
        [first, Params { length: first.parts(), part: first.parts(), ..*self }]
    }
}

impl Rows for Params {
    fn size(&self) -> [u32; 2] {
        [self.outer, self.length]
    }
}

/// The most columns of a workgroup that shares them: as many as a cache line has.
const COLUMNS: u32 = 32;

const fn by_column(source: &'static str) -> Shader<Params> {
    Shader::new(source, |p: &Params| grid(p.outputs() as usize, 64))
        .with(constants)
        .allowed(|p, traits| p.parts() == 1 && traits.iterations_fit(p.length.into()))
}

const fn by_row(source: &'static str) -> Shader<Params> {
    team::shared(source)
        .with(|p| constants(p).into_iter().chain(team::constants(p)).collect())
        .allowed(|p, _| is_of_rows(p))
        .preferred(|p, traits| traits.shares_row(p.length))
}

const fn by_row_in_subgroups(source: &'static str) -> Shader<Params> {
    by_row(source)
        .allowed(|p, traits| is_of_rows(p) && team::has_subgroups(p, traits))
        .preferred(|p, traits| !traits.software && traits.shares_row(p.length))
}

fn is_of_rows(p: &Params) -> bool {
    p.inner == 1 && p.parts() == 1
}

/// Better where a column an invocation would leave a device idle.
const fn by_shared_column(source: &'static str) -> Shader<Params> {
    Shader::new(source, |p: &Params| grid(p.outputs() as usize, columns(p) as usize))
        .with(|p| constants(p).into_iter().chain([("COLUMNS", columns(p).into())]).collect())
        .preferred(|p, traits| !traits.software && p.inner > 1 && p.part >= 16 && p.outputs() < 1 << 16)
}

fn columns(p: &Params) -> u32 {
    p.outputs().next_power_of_two().min(COLUMNS)
}

fn constants(p: &Params) -> Constants {
    vec![("OPERATION", p.operation.into())]
}

fn bucket(p: &Params) -> [u32; 4] {
    [p.outer, p.length, p.inner, p.part]
}

fn cost(p: &Params) -> Cost {
    let inputs = u64::from(p.outer) * u64::from(p.length) * u64::from(p.inner);
    Cost { flops: inputs, bytes: 4 * (inputs + u64::from(p.outputs())) }
}

pub(super) struct Reduce;

impl Kernel for Reduce {
    type Params = Params;
    const NAME: &'static str = "reduce";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        by_column("reduce_columns_values"),
        by_shared_column("reduce_columns_shared_values"),
        by_row("reduce_rows_values"),
        by_row_in_subgroups("reduce_rows_subgroups_values"),
    ];
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        bucket(p)
    }
    /// Few columns of many rows are cut into parts.
    fn lower(p: &Params, buffers: &[BufferRef], into: &mut Lowering) {
        let part = p.best_part(into.traits);
        if part < p.part {
            let [parts, joined] = p.in_parts(part);
            let between = into.buffer(DType::F32, parts.outputs() as usize);
            into.dispatch::<Reduce>(parts, &[buffers[0], between]);
            into.dispatch::<Reduce>(joined, &[between, buffers[1]]);
        }
    }
    fn cost(p: &Params) -> Cost {
        cost(p)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, y) = (io.real(0), io.real_mut(1));
        if p.operation == SUM {
            fold(p, x, y, R::ZERO, |a, b| a + b);
        } else {
            fold(p, x, y, R::from_f64(f64::from(f32::MIN)), |a, b| a.max(b));
        }
    }
}

/// Accumulates in sixteen lanes, which vector instructions can hold, and those in order.
fn fold<R: Real>(p: &Params, x: &[R], y: &mut [R], start: R, combine: impl Fn(R, R) -> R + Sync) {
    let (part, inner) = (p.part as usize, p.inner as usize);
    if inner == 1 {
        return parallel::rows(
            y,
            1,
            part,
            #[inline(always)]
            |first, _, y| {
                for (row, y) in y.iter_mut().enumerate() {
                    let x = &x[p.terms(first + row)];
                    let mut lanes = [start; 16];
                    let blocks = x.chunks_exact(16);
                    let rest = blocks.remainder().iter().fold(start, |sum, &value| combine(sum, value));
                    for block in blocks {
                        lanes.iter_mut().zip(block).for_each(|(lane, &value)| *lane = combine(*lane, value));
                    }
                    *y = combine(lanes.into_iter().fold(start, &combine), rest);
                }
            },
        );
    }
    // Few outer rows must still occupy all cores, so each row of outputs is cut too.
    let width = if inner % 64 == 0 && p.outer * p.parts() == 1 { 64 } else { inner };
    parallel::rows(
        y,
        width,
        part,
        #[inline(always)]
        |first, _, chunk| {
            for (chunk, y) in chunk.chunks_exact_mut(width).enumerate() {
                let start_at = (first + chunk) * width;
                let (row, column) = (start_at / inner, start_at % inner);
                y.fill(start);
                for at in p.terms(row) {
                    let x = &x[at * inner + column..][..width];
                    y.iter_mut().zip(x).for_each(|(y, &value)| *y = combine(*y, value));
                }
            }
        },
    );
}

pub(super) struct ReduceIndex;

impl Kernel for ReduceIndex {
    type Params = Params;
    const NAME: &'static str = "argmax";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        by_column("reduce_columns_indices"),
        by_shared_column("reduce_columns_shared_indices"),
        by_row("reduce_rows_indices"),
        by_row_in_subgroups("reduce_rows_subgroups_indices"),
    ];
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        bucket(p)
    }
    fn cost(p: &Params) -> Cost {
        cost(p)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, y) = (io.real(0), io.u32_mut(1));
        let (length, inner) = (p.length as usize, p.inner as usize);
        parallel::rows(
            y,
            1,
            length,
            #[inline(always)]
            |first, _, y| {
                for (i, y) in y.iter_mut().enumerate() {
                    let at = |k: usize| x[((first + i) / inner * length + k) * inner + (first + i) % inner];
                    *y = (1..length).fold(0, |best, k| if at(k) > at(best) { k } else { best }) as u32;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_few_columns_of_many_rows_on_real_gpus_are_cut() {
        let part = |[outer, length, inner]: [u32; 3], software: bool| {
            let params = Params { outer, length, inner, part: length, operation: SUM };
            params.best_part(&Traits { software, ..Traits::default() })
        };
        assert_eq!(part([1, 4096, 512], false), 128);
        assert_eq!(part([1, 100, 512], false), 100);
        assert_eq!(part([1, 4096, 1 << 15], false), 4096);
        assert_eq!(part([1, 4096, 1], false), 4096);
        assert_eq!(part([1, 4096, 512], true), 4096);
        // Every row is in one part.
        let [parts, joined] = Params { outer: 2, length: 10, inner: 3, part: 10, operation: SUM }.in_parts(4);
        let rows: Vec<_> = (0..6).map(|row| parts.terms(row)).collect();
        assert_eq!(rows, [0..4, 4..8, 8..10, 10..14, 14..18, 18..20]);
        assert_eq!([joined.parts(), joined.outputs()], [1, 6]);
    }
}
