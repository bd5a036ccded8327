//! Softmax over the last axis.

use bytemuck::{Pod, Zeroable};

use super::team::{self, Rows};
use super::{Op, div, exp, max_axis, sub, sum_axis};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Io, Kernel, Shader};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "softmax", kernels: &[AnyKernel::of::<Softmax>(), AnyKernel::of::<SoftmaxGrad>()], cases };

/// y_i = e^(x_i - max x) / sum_j e^(x_j - max x) over the last axis.
///
/// Derivative, for the gradient g: dx = y (g - sum_j g_j y_j).
#[track_caller]
pub fn softmax(x: &Tensor) -> Tensor {
    assert!(x.dtype() == DType::F32 && x.rank() > 0, "[softmax] expected f32 with at least one axis, got {x:?}");
    let width = x.last_size();
    let params = Params { rows: (x.elements() / width.max(1)) as u32, width: width as u32 };
    let y = x.device().empty(x.shape(), DType::F32);
    dispatch::<Softmax>(params, &[&x.detach().whole(), &y]);
    let saved = y.clone();
    y.with_rule("softmax", [x], move |g, _| {
        let dx = g.device().empty(g.shape(), DType::F32);
        dispatch::<SoftmaxGrad>(params, &[&saved, &g.whole(), &dx]);
        [Some(dx)]
    })
}

/// The same by primitives.
fn composed(x: &Tensor) -> Tensor {
    let axis = x.rank() - 1;
    let kept = x.shape().with(axis, 1);
    let e = exp(&sub(x, &max_axis(&x.detach(), axis).reshape(kept)));
    div(&e, &sum_axis(&e, axis).reshape(kept))
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    width: u32,
}

impl Rows for Params {
    fn size(&self) -> [u32; 2] {
        [self.rows, self.width]
    }
}

struct Softmax;

impl Kernel for Softmax {
    type Params = Params;
    const NAME: &'static str = "softmax";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &team::shaders("softmax_scalars", "softmax_vectors", "softmax_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn cost(p: &Params) -> Cost {
        let elements = u64::from(p.rows) * u64::from(p.width);
        Cost { flops: 5 * elements, bytes: 8 * elements }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, y, width) = (io.real(0), io.real_mut(1), p.width as usize);
        parallel::rows(
            y,
            width,
            4,
            #[inline(always)]
            |first, _, chunk| {
                for (row, y) in chunk.chunks_exact_mut(width).enumerate() {
                    let x = &x[(first + row) * width..][..width];
                    let largest = parallel::largest(x, x[0]);
                    let scale = R::ONE / parallel::lane_map(y, x, |x| (x - largest).exp());
                    y.iter_mut().for_each(|y| *y *= scale);
                }
            },
        );
    }
}

struct SoftmaxGrad;

impl Kernel for SoftmaxGrad {
    type Params = Params;
    const NAME: &'static str = "softmax_grad";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &team::shaders("softmax_grad_scalars", "softmax_grad_vectors", "softmax_grad_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn cost(p: &Params) -> Cost {
        let elements = u64::from(p.rows) * u64::from(p.width);
        Cost { flops: 4 * elements, bytes: 12 * elements }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (y, dy, dx, width) = (io.real(0), io.real(1), io.real_mut(2), p.width as usize);
        parallel::rows(
            dx,
            width,
            2,
            #[inline(always)]
            |first, _, chunk| {
                for (row, dx) in chunk.chunks_exact_mut(width).enumerate() {
                    let at = (first + row) * width;
                    let (y, dy) = (&y[at..at + width], &dy[at..at + width]);
                    let mean = parallel::lane_dot(y, dy, |y, dy| y * dy);
                    dx.iter_mut().zip(y).zip(dy).for_each(|((dx, &y), &dy)| *dx = y * (dy - mean));
                }
            },
        );
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = EDGES
        .into_iter()
        .map(|size| {
            let case = Case::new(format!("softmax {size}"), [Input::any([3, size])], |x| vec![softmax(&x[0])]).terms(size);
            if size > 0 { case.composed(|x| vec![composed(&x[0])]) } else { case }
        })
        .collect();
    cases.push(Case::new("softmax of a vocabulary", [Input::any([2, 70_000])], |x| vec![softmax(&x[0])]).terms(70_000).large());
    cases.push(
        Case::new("softmax of a vocabulary in no whole vectors", [Input::any([2, 70_001])], |x| vec![softmax(&x[0])])
            .terms(70_001)
            .large(),
    );
    cases.push(
        Case::new("softmax past 65,535 workgroups", [Input::any([66_000, 65])], |x| vec![softmax(&x[0])]).terms(65).large(),
    );
    cases
}
