//! A choice between two tensors, element by element.

use bytemuck::{Pod, Zeroable};

use super::view::View;
use super::{Op, full, greater, sum_to};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Data, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "where", kernels: &[AnyKernel::of::<Where>()], cases };

/// a where the mask (u32 or f32) is not 0, b where it is, all three broadcast. What is not chosen may be anything, NaN too.
///
/// Derivatives: the gradient where a was chosen and 0 elsewhere, and the other way round for b. The mask takes none.
#[track_caller]
pub fn where_(mask: &Tensor, a: &Tensor, b: &Tensor) -> Tensor {
    assert!(
        matches!(mask.dtype(), DType::U32 | DType::F32) && a.dtype() == DType::F32 && b.dtype() == DType::F32,
        "[where_] expected a mask of u32 or f32 and two f32 tensors, got {mask:?}, {a:?} and {b:?}"
    );
    let shape = mask.shape().broadcast(&a.shape()).broadcast(&b.shape());
    let params = Params {
        views: [mask, a, b].map(|x| View::new(&x.layout().expand(shape))),
        elements: shape.elements() as u32,
        // A negative zero is zero.
        bits: if mask.dtype() == DType::F32 { 0x7fff_ffff } else { u32::MAX },
        unused: [0; 2],
    };
    let y = a.device().empty(shape, DType::F32);
    dispatch::<Where>(params, &[mask, a, b, &y]);
    let (mask, shapes) = (mask.detach(), [a.shape(), b.shape()]);
    y.with_rule("where_", [a, b], move |g, needs| {
        let zero = full(g.device(), 0.0, []);
        [
            needs[0].then(|| sum_to(&where_(&mask, g, &zero), shapes[0])),
            needs[1].then(|| sum_to(&where_(&mask, &zero, g), shapes[1])),
        ]
    })
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    views: [View; 3],
    elements: u32,
    /// Those of the mask's bits that say whether it is 0.
    bits: u32,
    unused: [u32; 2],
}

struct Where;

impl Kernel for Where {
    type Params = Params;
    const NAME: &'static str = "where";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("where", |p| grid(p.elements as usize, 256))];
    fn cost(p: &Params) -> Cost {
        Cost { flops: 0, bytes: 16 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (a, b, y) = (io.real(1), io.real(2), io.real_mut(3));
        match io.data(0) {
            Data::Real(mask) => choose(p, mask, R::ZERO, a, b, y),
            Data::U32(mask) => choose(p, mask, 0, a, b, y),
            _ => unreachable!("[where] expected a mask of u32 or f32"),
        }
    }
}

fn choose<R: Real, M: Copy + PartialEq + Sync>(p: &Params, mask: &[M], zero: M, a: &[R], b: &[R], y: &mut [R]) {
    let width = p.views[0].row();
    let steps = p.views.map(|view| view.step());
    parallel::rows(
        y,
        width,
        2,
        #[inline(always)]
        |first, _, chunk| {
            for (row, y) in chunk.chunks_exact_mut(width).enumerate() {
                let starts = p.views.map(|view| view.row_start(first + row));
                let (mask, a, b) = (&mask[starts[0]..], &a[starts[1]..], &b[starts[2]..]);
                for (at, y) in y.iter_mut().enumerate() {
                    *y = if mask[at * steps[0]] != zero { a[at * steps[1]] } else { b[at * steps[2]] };
                }
            }
        },
    );
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in EDGES {
        let inputs = [Input::indices([size], 2), Input::any([size]), Input::any([size])];
        cases.push(Case::new(format!("where {size}"), inputs, |x| vec![where_(&x[0], &x[1], &x[2])]));
    }
    let masked = [Input::any([5, 7]), Input::any([7, 5]), Input::any([7])];
    cases.push(Case::new("where of views, by a comparison", masked, |x| {
        let mask = greater(&x[0], &full(x[0].device(), 0.0, []));
        vec![where_(&mask.detach(), &x[1].transpose(), &x[2])]
    }));
    let column = [Input::given([4, 1], &[0.0, -0.0, 2.0, 0.5]), Input::any([3]), Input::any([2, 4, 3])];
    cases.push(Case::new("where by a column", column, |x| vec![where_(&x[0], &x[1], &x[2])]).terms(8));
    cases
}
