//! Sums, means and maxima over an axis.

mod kernels;

use super::{Op, div, equal, mul, scale};
use crate::dtype::DType;
use crate::kernel::AnyKernel;
use crate::shape::Shape;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};
use kernels::{ARGMAX, MAX, Params, Reduce, ReduceIndex, SUM};

pub(crate) const OP: Op = Op { name: "reduce", kernels: &[AnyKernel::of::<Reduce>(), AnyKernel::of::<ReduceIndex>()], cases };

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
    dispatch::<ReduceIndex>(Params::new(ARGMAX, x, axis), &[&x.detach().whole(), &y]);
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
    let [parts, joined] = Params::new(operation, x, axis).in_parts(part);
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
    dispatch::<Reduce>(Params::new(operation, x, axis), &[&x.detach().whole(), &y]);
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
}
