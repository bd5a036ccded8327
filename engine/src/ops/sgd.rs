//! One step of stochastic gradient descent with momentum over one parameter, in place.

use bytemuck::{Pod, Zeroable};

use super::{Op, full};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "sgd", kernels: &[AnyKernel::of::<Sgd>()], cases };

/// The numbers of one step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SgdStep {
    /// The step's size.
    pub learning_rate: f64,
    /// How much of the velocity is kept.
    pub momentum: f64,
    /// The share of the parameter that is added to its gradient.
    pub weight_decay: f64,
}

/// One step of gradient descent with momentum (Polyak 1964) as PyTorch takes it, for the gradient
/// g = scale * `gradient` + weight_decay p:
///
/// u = momentum u + g, p = p - learning_rate u
///
/// `parameter` and `velocity` (u) are overwritten, as [`adamw_`](super::adamw_) does. `scale` has one element; if it is not
/// finite, nothing changes.
#[track_caller]
pub fn sgd_(parameter: &Tensor, velocity: &Tensor, gradient: &Tensor, scale: &Tensor, step: &SgdStep) {
    let fits = |x: &Tensor| x.dtype() == DType::F32 && x.shape() == parameter.shape();
    assert!(
        [parameter, velocity, gradient].into_iter().all(fits) && scale.elements() == 1,
        "[sgd_] expected three f32 tensors of one shape and a scale of one element, got {parameter:?}, {velocity:?}, {gradient:?} and {scale:?}"
    );
    assert!([parameter, velocity].into_iter().all(Tensor::is_whole), "[sgd_] expected tensors that are no views");
    let params = Params {
        elements: parameter.elements() as u32,
        learning_rate: step.learning_rate as f32,
        momentum: step.momentum as f32,
        weight_decay: step.weight_decay as f32,
    };
    dispatch::<Sgd>(params, &[parameter, velocity, &gradient.whole(), &scale.whole()]);
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    learning_rate: f32,
    momentum: f32,
    weight_decay: f32,
}

struct Sgd;

impl Kernel for Sgd {
    type Params = Params;
    const NAME: &'static str = "sgd";
    const ACCESS: &'static [Access] = &[Access::Update, Access::Update, Access::Read, Access::Read];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("sgd", |p| grid(p.elements as usize, 1024))];
    const ELEMENTWISE: Option<&'static Elementwise<Params>> = Some(&Elementwise {
        elements: |p| Some(p.elements as usize),
        part: |p, range| Params { elements: range.len() as u32, ..*p },
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: 7 * u64::from(p.elements), bytes: 20 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (parameter, velocity, gradient, scale) = (io.real_mut(0), io.real_mut(1), io.real(2), io.real(3)[0]);
        if !scale.to_f64().is_finite() {
            return;
        }
        let [rate, momentum, decay] = [p.learning_rate, p.momentum, p.weight_decay].map(R::from_f32);
        parallel::rows_of_two(
            (parameter, 1),
            (velocity, 1),
            1,
            #[inline(always)]
            |first, _, parameter, velocity| {
                for ((x, u), &g) in parameter.iter_mut().zip(velocity).zip(&gradient[first..]) {
                    *u = momentum * *u + scale * g + decay * *x;
                    *x -= rate * *u;
                }
            },
        );
    }
}

fn cases() -> Vec<Case> {
    let case = |size: usize| {
        let inputs = [Input::fixed([size]), Input::fixed([size]), Input::fixed([size])];
        Case::new(format!("sgd {size}"), inputs, |x| {
            let step = SgdStep { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.01 };
            sgd_(&x[0], &x[1], &x[2], &full(x[0].device(), 0.5, [1]), &step);
            x[..2].to_vec()
        })
    };
    EDGES.map(case).into()
}
