//! The gated activation of Llama's feed-forward layer.

use bytemuck::{Pod, Zeroable};

use super::{Op, mul, silu};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Io, Kernel, Pointwise, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "swiglu", kernels: &[AnyKernel::of::<Swiglu>(), AnyKernel::of::<SwigluGrad>()], cases };

/// y = silu(gate) up with silu(x) = x sigmoid(x), for two tensors of one shape (Shazeer 2020, arXiv:2002.05202).
///
/// Derivatives, for the gradient g and s = sigmoid(gate): dgate = g up s (1 + gate (1 - s)), dup = g gate s.
#[track_caller]
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Tensor {
    assert!(
        gate.dtype() == DType::F32 && up.dtype() == DType::F32 && gate.shape() == up.shape(),
        "[swiglu] expected two f32 tensors of one shape, got {gate:?} and {up:?}"
    );
    let params = Params { elements: gate.elements() as u32 };
    let saved = [gate, up].map(|x| x.detach().whole());
    let y = gate.device().empty(gate.shape(), DType::F32);
    dispatch::<Swiglu>(params, &[&saved[0], &saved[1], &y]);
    y.with_rule("swiglu", [gate, up], move |g, _| {
        let [dgate, dup] = [(); 2].map(|()| g.device().empty(g.shape(), DType::F32));
        dispatch::<SwigluGrad>(params, &[&saved[0], &saved[1], &g.whole(), &dgate, &dup]);
        [Some(dgate), Some(dup)]
    })
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
}

struct Swiglu;

impl Kernel for Swiglu {
    type Params = Params;
    const NAME: &'static str = "swiglu";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("swiglu", |p| grid(p.elements as usize, 1024))];
    const POINTWISE: Option<&'static Pointwise<Params>> = Some(&Pointwise {
        elementwise: Elementwise {
            elements: |p| Some(p.elements as usize),
            part: |_, range| Params { elements: range.len() as u32 },
        },
        numbers: |_| 0,
        function: |_| 0,
        expression: |_| "$0 * sigmoids($0) * $1".to_string(),
        import: Some("sigmoid"),
        words: |_| [0; 4],
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: 5 * u64::from(p.elements), bytes: 12 * u64::from(p.elements) }
    }
    fn run<R: Real>(_: &Params, io: &mut Io<R>) {
        let (gate, up) = (io.real(0), io.real(1));
        parallel::elements(
            io.real_mut(2),
            #[inline(always)]
            |first, y| {
                let (gate, up) = (&gate[first..first + y.len()], &up[first..first + y.len()]);
                for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                    *y = gate * gate.sigmoid() * up;
                }
            },
        );
    }
}

struct SwigluGrad;

impl Kernel for SwigluGrad {
    type Params = Params;
    const NAME: &'static str = "swiglu_grad";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader { source: "swiglu_grad", ..Swiglu::SHADERS[0] }];
    fn cost(p: &Params) -> Cost {
        Cost { flops: 10 * u64::from(p.elements), bytes: 20 * u64::from(p.elements) }
    }
    fn run<R: Real>(_: &Params, io: &mut Io<R>) {
        let (gate, up, g) = (io.real(0), io.real(1), io.real(2));
        parallel::rows_of_two(
            (io.real_mut(3), 1),
            (io.real_mut(4), 1),
            1,
            #[inline(always)]
            |first, count, dgate, dup| {
                let range = first..first + count;
                let inputs = gate[range.clone()].iter().zip(&up[range.clone()]).zip(&g[range]);
                for (((&gate, &up), &g), (dgate, dup)) in inputs.zip(dgate.iter_mut().zip(dup)) {
                    let s = gate.sigmoid();
                    *dgate = g * up * s * (R::ONE + gate * (R::ONE - s));
                    *dup = g * gate * s;
                }
            },
        );
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = EDGES
        .into_iter()
        .map(|size| {
            let case =
                Case::new(format!("swiglu {size}"), [Input::any([size]), Input::any([size])], |x| vec![swiglu(&x[0], &x[1])]);
            case.composed(|x| vec![mul(&silu(&x[0]), &x[1])])
        })
        .collect();
    cases.push(Case::new("swiglu of halves", [Input::any([5, 12])], |x| {
        vec![swiglu(&x[0].slice(1, 0..6), &x[0].slice(1, 6..12))]
    }));
    cases
}
