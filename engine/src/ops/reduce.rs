//! Sums, means and maxima over an axis.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::team::{self, Rows};
use super::{Op, div, equal, mul, scale};
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Constants, Cost, Io, Kernel, Lowering, Shader, Traits, grid};
use crate::real::Real;
use crate::shape::Shape;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "reduce", kernels: &[AnyKernel::of::<Reduce>(), AnyKernel::of::<ReduceIndex>()], cases };

const SUM: u32 = 0;
const MAX: u32 = 1;
const ARGMAX: u32 = 2;

/// The longest run that one pass sums: longer ones are summed in parts, then the parts.
const LONGEST: usize = 1 << 14;

/// The sum of all elements, as a scalar. Every element gets the gradient.
#[track_caller]
pub fn sum(x: &Tensor) -> Tensor {
    let shape = x.shape();
    total(&x.detach()).with_rule("sum", [x], move |g, _| [Some(g.expand(shape))])
}

fn total(x: &Tensor) -> Tensor {
    let elements = x.elements();
    if elements <= LONGEST {
        return sum_axis(&x.reshape([1, elements]), 1).reshape([]);
    }
    // Parts of equal length and a rest, so that the order of additions depends on the number of elements alone.
    let (parts, flat) = (elements / LONGEST, x.reshape([elements]));
    let body = total(&sum_axis(&flat.slice(0, 0..parts * LONGEST).reshape([parts, LONGEST]), 1));
    match elements % LONGEST {
        0 => body,
        rest => super::add(&body, &total(&flat.slice(0, elements - rest..elements))),
    }
}

/// The mean of all elements, as a scalar.
#[track_caller]
pub fn mean(x: &Tensor) -> Tensor {
    scale(&sum(x), 1.0 / x.elements() as f32)
}

/// The sum over one axis, which goes from the shape.
#[track_caller]
pub fn sum_axis(x: &Tensor, axis: usize) -> Tensor {
    let y = reduce("sum_axis", SUM, x, axis);
    let shape = x.shape();
    y.with_rule("sum_axis", [x], move |g, _| [Some(g.reshape(shape.with(axis, 1)).expand(shape))])
}

/// The mean over one axis, which goes from the shape.
#[track_caller]
pub fn mean_axis(x: &Tensor, axis: usize) -> Tensor {
    scale(&sum_axis(x, axis), 1.0 / x.size(axis) as f32)
}

/// The largest over one axis of at least one element, which goes from the shape. Equal maxima share the gradient.
#[track_caller]
pub fn max_axis(x: &Tensor, axis: usize) -> Tensor {
    assert!(x.size(axis) > 0, "[max_axis] expected an axis that is not empty, got {x:?}");
    let y = reduce("max_axis", MAX, x, axis);
    let (saved_x, saved_y, shape) = (x.detach(), y.detach(), x.shape());
    y.with_rule("max_axis", [x], move |g, _| {
        let kept = shape.with(axis, 1);
        let winners = equal(&saved_x, &saved_y.reshape(kept));
        let share = div(&g.reshape(kept), &sum_axis(&winners, axis).reshape(kept));
        [Some(mul(&winners, &share))]
    })
}

/// The index (u32) of the first largest element over one axis, which goes from the shape. Takes no gradient.
#[track_caller]
pub fn argmax_axis(x: &Tensor, axis: usize) -> Tensor {
    assert!(x.size(axis) > 0, "[argmax_axis] expected an axis that is not empty, got {x:?}");
    if let Some(turned) = turned(x, axis) {
        return argmax_axis(&turned, x.rank() - 1);
    }
    let y = x.device().empty_indices(without(x.shape(), axis), x.size(axis));
    dispatch::<ReduceIndex>(params(ARGMAX, x, axis), &[&x.detach().whole(), &y]);
    y
}

/// x summed over the axes along which `shape` was broadcast to x's: the derivative of broadcasting.
#[track_caller]
pub fn sum_to(x: &Tensor, shape: Shape) -> Tensor {
    let added = x.rank() - shape.len();
    let leading: usize = x.shape()[..added].iter().product();
    let mut y = x.clone();
    if added > 0 {
        let rest: usize = x.shape()[added..].iter().product();
        y = sum_axis(&y.reshape([leading, rest]), 0).reshape(&x.shape()[added..]);
    }
    for axis in 0..shape.len() {
        if shape[axis] == 1 && y.size(axis) != 1 {
            let kept = y.shape().with(axis, 1);
            y = sum_axis(&y, axis).reshape(kept);
        }
    }
    y
}

/// The same in parts of so many rows on any device: what the laws run.
fn reduce_in_parts(operation: u32, x: &Tensor, axis: usize, part: u32) -> Tensor {
    let [parts, joined] = params(operation, x, axis).in_parts(part);
    let between = x.device().empty([parts.outputs() as usize], DType::F32);
    let y = x.device().empty(without(x.shape(), axis), DType::F32);
    dispatch::<Reduce>(parts, &[&x.detach().whole(), &between]);
    dispatch::<Reduce>(joined, &[&between, &y]);
    y
}

#[track_caller]
fn reduce(name: &'static str, operation: u32, x: &Tensor, axis: usize) -> Tensor {
    assert!(x.dtype() == DType::F32 && axis < x.rank(), "[{name}] expected f32 with an axis {axis}, got {x:?}");
    if let Some(turned) = turned(x, axis) {
        return reduce(name, operation, &turned, x.rank() - 1);
    }
    let y = x.device().empty(without(x.shape(), axis), DType::F32);
    dispatch::<Reduce>(params(operation, x, axis), &[&x.detach().whole(), &y]);
    y
}

/// Long columns as rows: columns are not shared out, and no invocation may loop for so long (`Traits::loop_fits`).
fn turned(x: &Tensor, axis: usize) -> Option<Tensor> {
    let mut order: Vec<usize> = (0..x.rank()).filter(|&other| other != axis).collect();
    order.push(axis);
    (x.size(axis) > LONGEST && axis + 1 < x.rank()).then(|| x.detach().permute(&order))
}

fn without(shape: Shape, axis: usize) -> Shape {
    let mut sizes = shape.to_vec();
    sizes.remove(axis);
    Shape::new(&sizes)
}

fn params(operation: u32, x: &Tensor, axis: usize) -> Params {
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

/// x [outer, length, inner] -> y [outer, parts, inner].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    outer: u32,
    length: u32,
    inner: u32,
    /// Rows of each part of `length`, of which the last may have fewer.
    part: u32,
    operation: u32,
}

impl Params {
    fn parts(&self) -> u32 {
        self.length.div_ceil(self.part).max(1)
    }

    fn outputs(&self) -> u32 {
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
    fn in_parts(&self, part: u32) -> [Params; 2] {
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

struct Reduce;

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

struct ReduceIndex;

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

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in EDGES {
        cases.push(Case::new(format!("sum {size}"), [Input::any([size])], |x| vec![sum(&x[0])]).terms(size));
        cases.push(Case::new(format!("sum rows of {size}"), [Input::any([3, size])], |x| vec![sum_axis(&x[0], 1)]).terms(size));
        cases.push(Case::new(format!("sum {size} rows"), [Input::any([size, 64])], |x| vec![sum_axis(&x[0], 0)]).terms(size));
        if size > 0 {
            cases.push(Case::new(format!("max {size}"), [Input::any([3, size, 2])], |x| vec![max_axis(&x[0], 1)]));
            cases.push(Case::new(format!("argmax {size}"), [Input::fixed([3, size])], |x| vec![argmax_axis(&x[0], 1)]));
        }
    }
    cases.push(Case::new("sum in parts", [Input::any([3, LONGEST])], |x| vec![sum(&x[0])]).terms(3 * LONGEST));
    cases.push(Case::new("sum of long columns", [Input::any([70_000, 3])], |x| vec![sum_axis(&x[0], 0)]).terms(70_000).large());
    cases.push(Case::new("max of long columns", [Input::any([70_000, 3])], |x| vec![max_axis(&x[0], 0)]).large());
    cases.push(Case::new("argmax of long columns", [Input::any([70_000, 3])], |x| vec![argmax_axis(&x[0], 0)]).large());
    cases.push(Case::new("argmax of a long row", [Input::any([1, 70_000])], |x| vec![argmax_axis(&x[0], 1)]).large());
    for ([outer, length, inner], part) in [([1, 100, 40], 32), ([3, 65, 5], 13), ([2, 7, 1], 3), ([1, 300, 70], 299)] {
        for (name, operation) in [("sum", SUM), ("max", MAX)] {
            let label = format!("{name} of {outer}x{length}x{inner} in parts of {part}");
            let case = Case::new(label, [Input::fixed([outer, length, inner])], move |x| {
                vec![reduce_in_parts(operation, &x[0], 1, part)]
            });
            cases.push(case.terms(length).composed(move |x| vec![reduce(name, operation, &x[0], 1)]));
        }
    }
    for [outer, length, inner] in [[1, 1000, 33], [2, 129, 3], [1, 16, 100]] {
        let label = |name: &str| format!("{name} of columns {outer}x{length}x{inner}");
        let shape = [outer, length, inner];
        cases.push(Case::new(label("sum"), [Input::any(shape)], |x| vec![sum_axis(&x[0], 1)]).terms(length));
        cases.push(Case::new(label("argmax"), [Input::fixed(shape)], |x| vec![argmax_axis(&x[0], 1)]));
    }
    cases.push(Case::new("mean", [Input::any([7, 9])], |x| vec![mean(&x[0]), mean_axis(&x[0], 0)]).terms(63));
    cases.push(Case::new("sum_to", [Input::any([2, 5, 3, 4])], |x| vec![sum_to(&x[0], [3, 1].into())]).terms(40));
    cases.push(Case::new("argmax of ties", [Input::given([5], &[1.0, 7.0, 7.0, 0.0, 7.0])], |x| vec![argmax_axis(&x[0], 0)]));
    cases.push(
        Case::new("sum past 65,535 workgroups", [Input::any([70_000, 65])], |x| vec![sum_axis(&x[0], 1)]).terms(65).large(),
    );
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, adapters};

    #[test]
    fn of_nothing_that_can_be_compared_the_index_is_one_that_there_is() {
        let gpu = (!adapters().is_empty()).then(|| Device::open("gpu").unwrap());
        for device in [Device::cpu()].into_iter().chain(gpu) {
            for (value, length) in [(f32::NAN, 3), (f32::NEG_INFINITY, 3), (f32::NAN, 5000)] {
                let x = device.tensor(&vec![value; 2 * length], [2, length]);
                let [rows, columns] = [argmax_axis(&x, 1), argmax_axis(&x.transpose(), 0)].map(|y| y.to_vec_u32().unwrap());
                assert!(rows.iter().chain(&columns).all(|&index| index < length as u32), "{device:?}: {rows:?} {columns:?}");
            }
        }
    }

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
