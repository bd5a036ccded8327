//! Functions of two numbers, element by element with broadcasting: one table.

use bytemuck::{Pod, Zeroable};

use super::view::View;
use super::{Op, full, neg, scale, square, sum_to};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Finish, Io, Kernel, Pointwise, Shader, grid};
use crate::real::Real;
use crate::shape::{Layout, Shape};
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "binary", kernels: &[AnyKernel::of::<Binary>()], cases };

const ADD: u32 = 0;
const SUB: u32 = 1;
const MUL: u32 = 2;
const DIV: u32 = 3;
const MAXIMUM: u32 = 4;
const MINIMUM: u32 = 5;
const GREATER: u32 = 6;
const EQUAL: u32 = 7;

/// a + b, broadcast.
#[track_caller]
pub fn add(a: &Tensor, b: &Tensor) -> Tensor {
    let shapes = (a.shape(), b.shape());
    apply("add", ADD, a, b)
        .with_rule("add", [a, b], move |g, needs| [needs[0].then(|| sum_to(g, shapes.0)), needs[1].then(|| sum_to(g, shapes.1))])
}

/// a - b, broadcast.
#[track_caller]
pub fn sub(a: &Tensor, b: &Tensor) -> Tensor {
    let shapes = (a.shape(), b.shape());
    apply("sub", SUB, a, b).with_rule("sub", [a, b], move |g, needs| {
        [needs[0].then(|| sum_to(g, shapes.0)), needs[1].then(|| neg(&sum_to(g, shapes.1)))]
    })
}

/// a b, broadcast. Derivatives: b and a.
#[track_caller]
pub fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    let saved = (a.detach(), b.detach());
    apply("mul", MUL, a, b).with_rule("mul", [a, b], move |g, needs| {
        let (a, b) = saved;
        [needs[0].then(|| sum_to(&mul(g, &b), a.shape())), needs[1].then(|| sum_to(&mul(g, &a), b.shape()))]
    })
}

/// a / b, broadcast. Derivatives: 1/b and -a/b^2.
#[track_caller]
pub fn div(a: &Tensor, b: &Tensor) -> Tensor {
    let saved = (a.detach(), b.detach());
    apply("div", DIV, a, b).with_rule("div", [a, b], move |g, needs| {
        let (a, b) = saved;
        [
            needs[0].then(|| sum_to(&div(g, &b), a.shape())),
            needs[1].then(|| neg(&sum_to(&div(&mul(g, &a), &square(&b)), b.shape()))),
        ]
    })
}

/// The larger of a and b, broadcast; where they are equal each gets half of the gradient.
#[track_caller]
pub fn maximum(a: &Tensor, b: &Tensor) -> Tensor {
    extremum("maximum", MAXIMUM, a, b)
}

/// The smaller of a and b, broadcast; where they are equal each gets half of the gradient.
#[track_caller]
pub fn minimum(a: &Tensor, b: &Tensor) -> Tensor {
    extremum("minimum", MINIMUM, a, b)
}

/// 1 where a > b, else 0, broadcast. No gradient flows.
#[track_caller]
pub fn greater(a: &Tensor, b: &Tensor) -> Tensor {
    apply("greater", GREATER, a, b)
}

/// 1 where a = b, else 0, broadcast. No gradient flows.
#[track_caller]
pub fn equal(a: &Tensor, b: &Tensor) -> Tensor {
    apply("equal", EQUAL, a, b)
}

#[track_caller]
fn extremum(name: &'static str, operation: u32, a: &Tensor, b: &Tensor) -> Tensor {
    let saved = (a.detach(), b.detach());
    apply(name, operation, a, b).with_rule(name, [a, b], move |g, _| {
        let (a, b) = saved;
        let (winner, other) = if operation == MAXIMUM { (&a, &b) } else { (&b, &a) };
        let first = add(&greater(winner, other), &scale(&equal(&a, &b), 0.5));
        let second = sub(&full(g.device(), 1.0, g.shape()), &first);
        [Some(sum_to(&mul(g, &first), a.shape())), Some(sum_to(&mul(g, &second), b.shape()))]
    })
}

#[track_caller]
fn apply(name: &'static str, operation: u32, a: &Tensor, b: &Tensor) -> Tensor {
    let f32s = a.dtype() == DType::F32 && b.dtype() == DType::F32;
    assert!(f32s, "[{name}] expected f32, got {a:?} and {b:?}");
    let shape = a.shape().broadcast(&b.shape());
    let layouts = [a, b].map(|side| side.layout().expand(shape));
    let params = Params {
        views: layouts.each_ref().map(View::new),
        elements: shape.elements() as u32,
        operation,
        periods: [a, b].map(|side| period(side, shape)),
    };
    let y = a.device().empty(shape, DType::F32);
    dispatch::<Binary>(params, &[a, b, &y]);
    y
}

/// A side that fills the output.
const FILLS: u32 = u32::MAX;
/// A side that neither fills the output nor repeats along it.
const STRIDED: u32 = u32::MAX - 1;

/// How a side lies under an output of this shape: it fills it, repeats after so many vectors of four (0 for a single number), or
/// neither.
fn period(side: &Tensor, shape: Shape) -> u32 {
    let (layout, elements) = (side.layout(), side.elements());
    let sizes = &side.shape()[..];
    let sizes = &sizes[sizes.iter().take_while(|&&size| size == 1).count()..];
    match *layout == Layout::contiguous(side.shape()) && shape.ends_with(sizes) {
        true if elements == shape.elements() => FILLS,
        true if elements == 1 => 0,
        true if elements % 4 == 0 && elements > 0 => elements as u32 / 4,
        _ => STRIDED,
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    views: [View; 2],
    elements: u32,
    operation: u32,
    /// See [`period`].
    periods: [u32; 2],
}

struct Binary;

impl Kernel for Binary {
    type Params = Params;
    const NAME: &'static str = "binary";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        Shader::new("binary_strided", |p: &Params| grid(p.elements as usize, 1024))
            .with(|p| vec![("OPERATION", p.operation.into()), ("IN_FOURS", p.views.iter().all(View::is_in_fours).into())]),
        Shader::new("binary", |p: &Params| grid(p.elements as usize, 1024))
            .with(|p| {
                let [a_repeats, b_repeats] = p.periods.map(|period| f64::from(period != FILLS));
                vec![("OPERATION", p.operation.into()), ("A_REPEATS", a_repeats), ("B_REPEATS", b_repeats)]
            })
            .allowed(|p, _| !p.periods.contains(&STRIDED)),
    ];
    const POINTWISE: Option<&'static Pointwise<Params>> = Some(&Pointwise {
        elementwise: Elementwise {
            elements: |p| {
                let mut sides = p.periods.iter().zip(&p.views);
                sides.all(|(&period, view)| period == FILLS || view.is_one_number()).then_some(p.elements as usize)
            },
            part: |p, range| Params { views: p.views.map(|view| view.part(range.len())), elements: range.len() as u32, ..*p },
        },
        numbers: |p| p.periods.iter().rev().fold(0, |bits, &period| bits << 1 | u32::from(period != FILLS)),
        function: |p| p.operation,
        expression: |operation| format!("binary({operation}u, $0, $1)"),
        import: Some("binary_function"),
        words: |_| [0; 4],
    });
    fn finish(p: &Params) -> Option<Finish> {
        (p.operation == ADD && p.periods == [FILLS; 2]).then_some(Finish::Sum)
    }
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        [p.elements, p.periods[0], p.periods[1]]
    }
    fn cost(p: &Params) -> Cost {
        Cost { flops: p.elements.into(), bytes: 12 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (a, b, y) = (io.real(0), io.real(1), io.real_mut(2));
        let truth = |holds: bool| if holds { R::ONE } else { R::ZERO };
        match p.operation {
            ADD => zip(p, a, b, y, |a, b| a + b),
            SUB => zip(p, a, b, y, |a, b| a - b),
            MUL => zip(p, a, b, y, |a, b| a * b),
            DIV => zip(p, a, b, y, |a, b| a / b),
            MAXIMUM => zip(p, a, b, y, |a, b| a.max(b)),
            MINIMUM => zip(p, a, b, y, |a, b| a.min(b)),
            GREATER => zip(p, a, b, y, |a, b| truth(a > b)),
            _ => zip(p, a, b, y, |a, b| truth(a == b)),
        }
    }
}

fn zip<R: Real>(p: &Params, a: &[R], b: &[R], y: &mut [R], f: impl Fn(R, R) -> R + Sync) {
    if p.periods == [FILLS; 2] {
        return parallel::elements(
            y,
            #[inline(always)]
            |first, y| {
                let (a, b) = (&a[first..first + y.len()], &b[first..first + y.len()]);
                y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b));
            },
        );
    }
    let [view_a, view_b] = &p.views;
    let width = view_a.row();
    parallel::rows(
        y,
        width,
        1,
        #[inline(always)]
        |first, _, chunk| {
            for (row, y) in chunk.chunks_exact_mut(width).enumerate() {
                let (a, b) = (&a[view_a.row_start(first + row)..], &b[view_b.row_start(first + row)..]);
                match (view_a.step(), view_b.step()) {
                    (1, 1) => y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b)),
                    (1, 0) => y.iter_mut().zip(a).for_each(|(y, &a)| *y = f(a, b[0])),
                    (0, 1) => y.iter_mut().zip(b).for_each(|(y, &b)| *y = f(a[0], b)),
                    (i, j) => y.iter_mut().enumerate().for_each(|(at, y)| *y = f(a[at * i], b[at * j])),
                }
            }
        },
    );
}

fn cases() -> Vec<Case> {
    type Function = fn(&Tensor, &Tensor) -> Tensor;
    let functions: [(&str, Function); 6] =
        [("add", add), ("sub", sub), ("mul", mul), ("div", div), ("maximum", maximum), ("minimum", minimum)];
    let mut cases = Vec::new();
    for (name, f) in functions {
        let right = |shape: &[usize]| if name == "div" { Input::positive(shape) } else { Input::any(shape) };
        for size in EDGES {
            cases.push(Case::new(format!("{name} {size}"), [Input::any([size]), right(&[size])], move |x| vec![f(&x[0], &x[1])]));
        }
        cases.push(Case::new(format!("{name} row"), [Input::any([5, 7, 3]), right(&[3])], move |x| vec![f(&x[0], &x[1])]));
        cases.push(Case::new(format!("{name} whole vectors"), [Input::any([1, 6, 4]), right(&[5, 1, 4])], move |x| {
            vec![f(&x[0], &x[1])]
        }));
        cases.push(Case::new(format!("{name} row of vectors"), [Input::any([2, 3, 8]), right(&[1, 3, 8])], move |x| {
            vec![f(&x[0], &x[1])]
        }));
        cases.push(Case::new(format!("{name} number"), [Input::any([1]), right(&[3, 5])], move |x| vec![f(&x[0], &x[1])]));
        cases.push(Case::new(format!("{name} column"), [Input::any([5, 1]), right(&[2, 5, 6])], move |x| vec![f(&x[0], &x[1])]));
        cases.push(Case::new(format!("{name} of views"), [Input::any([6, 5]), right(&[5, 7])], move |x| {
            vec![f(&x[0].transpose(), &x[1].slice(1, 1..7))]
        }));
    }
    for (name, f) in [("greater", greater as Function), ("equal", equal)] {
        cases.push(Case::new(name, [Input::fixed([4, 5]), Input::fixed([5])], move |x| vec![f(&x[0], &x[1])]));
    }
    cases
}
