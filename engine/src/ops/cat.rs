//! Tensors one after the other along an axis.

use bytemuck::{Pod, Zeroable};

use super::view::View;
use super::{Op, full};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::shape::Layout;
use crate::tensor::{Node, Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "cat", kernels: &[AnyKernel::of::<Place>()], cases };

/// The parts one after the other along `axis`; their other axes agree. Parts may be views.
///
/// Derivatives: the slices of the gradient.
#[track_caller]
pub fn cat(parts: &[&Tensor], axis: usize) -> Tensor {
    let first = parts.first().expect("[cat] expected at least one part");
    let fits = |part: &&Tensor| part.dtype() == DType::F32 && part.shape().with(axis, 0) == first.shape().with(axis, 0);
    assert!(parts.iter().all(fits), "[cat] expected f32 parts whose axes agree but for axis {axis}, got {parts:?}");
    let inner: usize = first.shape()[axis + 1..].iter().product();
    let total: usize = parts.iter().map(|part| part.size(axis)).sum();
    let y = full(first.device(), 0.0, first.shape().with(axis, total));
    let mut starts = Vec::with_capacity(parts.len());
    let mut start = 0;
    for part in parts {
        let params = PlaceParams {
            view: View::new(part.layout()),
            elements: part.elements() as u32,
            start: (start * inner) as u32,
            part: (part.size(axis) * inner) as u32,
            whole: (total * inner) as u32,
        };
        if part.elements() > 0 {
            dispatch::<Place>(params, &[part, &y]);
        }
        starts.push(start..start + part.size(axis));
        start += part.size(axis);
    }
    if !parts.iter().any(|part| part.requires_grad()) {
        return y;
    }
    let nodes = parts.iter().map(|part| part.node().cloned()).collect();
    let rule = move |g: &Tensor| starts.into_iter().map(|range| Some(g.slice(axis, range))).collect();
    let node = Node::new(y.device(), "cat", y.shape(), nodes, Box::new(rule));
    y.on_node(node)
}

/// Writes a view [outer, part] at `start` of y's rows [outer, whole].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PlaceParams {
    view: View,
    elements: u32,
    start: u32,
    part: u32,
    whole: u32,
}

impl PlaceParams {
    /// Of a matrix of so many rows and columns, from a column of one with more of them on.
    pub(super) fn of_columns(rows: u32, columns: u32, start: u32, whole: u32) -> PlaceParams {
        let view = View::new(&Layout::contiguous([rows as usize, columns as usize].into()));
        PlaceParams { view, elements: rows * columns, start, part: columns, whole }
    }
}

pub(super) struct Place;

impl Kernel for Place {
    type Params = PlaceParams;
    const NAME: &'static str = "place";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Update];
    const SHADERS: &'static [Shader<PlaceParams>] = &[Shader::new("place", |p| grid(p.elements as usize, 256))];
    fn cost(p: &PlaceParams) -> Cost {
        Cost { flops: 0, bytes: 8 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &PlaceParams, io: &mut Io<R>) {
        let (x, y) = (io.real(0), io.real_mut(1));
        let (width, step, part) = (p.view.row(), p.view.step(), p.part as usize);
        let place = |first: usize, y: &mut [R]| {
            for (row, y) in y.chunks_exact_mut(width).enumerate() {
                let x = &x[p.view.row_start(first + row)..];
                match step {
                    1 => y.copy_from_slice(&x[..width]),
                    _ => y.iter_mut().enumerate().for_each(|(at, y)| *y = x[at * step]),
                }
            }
        };
        let range = p.start as usize..p.start as usize + part;
        // One outer row is shared out over the cores by its own rows, many are shared out whole.
        if y.len() == p.whole as usize {
            parallel::rows(
                &mut y[range],
                width,
                1,
                #[inline(always)]
                |first, _, chunk| place(first, chunk),
            );
        } else {
            let rows_a_part = part / width;
            parallel::rows(
                y,
                p.whole as usize,
                1,
                #[inline(always)]
                |first, _, chunk| {
                    for (outer, y) in chunk.chunks_exact_mut(p.whole as usize).enumerate() {
                        place((first + outer) * rows_a_part, &mut y[range.clone()]);
                    }
                },
            );
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in EDGES {
        for axis in 0..3 {
            let mut middle = [2, 3, 2];
            middle[axis] = size;
            let inputs = [Input::any([2, 3, 2]), Input::any(middle), Input::any([2, 3, 2])];
            cases.push(Case::new(format!("cat of {size} along axis {axis}"), inputs, move |x| {
                vec![cat(&[&x[0], &x[1], &x[2]], axis)]
            }));
        }
    }
    cases.push(Case::new("cat of views", [Input::any([5, 4]), Input::any([4, 6])], |x| {
        vec![cat(&[&x[0].transpose(), &x[1].slice(1, 1..3)], 1), cat(&[&x[0], &x[1].transpose().slice(0, 2..6)], 0)]
    }));
    cases.push(Case::new("cat of one tensor with itself", [Input::any([5])], |x| vec![cat(&[&x[0], &x[0]], 0)]));
    cases
}
