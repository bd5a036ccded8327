//! A tensor times a number.

use bytemuck::{Pod, Zeroable};

use super::Op;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Io, Kernel, Pointwise, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "scale", kernels: &[AnyKernel::of::<Scale>()], cases };

/// c x, for a number c that no gradient flows into.
///
/// Derivative: the gradient times c.
#[track_caller]
pub fn scale(x: &Tensor, factor: f32) -> Tensor {
    assert!(x.dtype() == DType::F32, "[scale] expected f32, got {x:?}");
    let y = x.device().empty(x.shape(), DType::F32);
    dispatch::<Scale>(Params { elements: x.elements() as u32, factor }, &[&x.detach().whole(), &y]);
    y.with_rule("scale", [x], move |g, _| [Some(scale(g, factor))])
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    factor: f32,
}

struct Scale;

impl Kernel for Scale {
    type Params = Params;
    const NAME: &'static str = "scale";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("scale", |p| grid(p.elements.div_ceil(4) as usize, 256))];
    const POINTWISE: Option<&'static Pointwise<Params>> = Some(&Pointwise {
        elementwise: Elementwise {
            elements: |p| Some(p.elements as usize),
            part: |p, range| Params { elements: range.len() as u32, ..*p },
        },
        numbers: |_| 0,
        function: |_| 0,
        expression: |_| "bitcast<f32>(#.x) * $0".to_string(),
        import: None,
        words: |p| [p.factor.to_bits(), 0, 0, 0],
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: p.elements.into(), bytes: 8 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, factor) = (io.real(0), R::from_f32(p.factor));
        parallel::elements(
            io.real_mut(1),
            #[inline(always)]
            |first, y| {
                let x = &x[first..first + y.len()];
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = factor * x);
            },
        );
    }
}

fn cases() -> Vec<Case> {
    EDGES.map(|size| Case::new(format!("scale {size}"), [Input::any([size])], |x| vec![scale(&x[0], -1.5)])).into()
}
