//! One step of AdamW over one parameter, in place.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::{Op, full};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "adamw", kernels: &[AnyKernel::of::<AdamW>()], cases };

/// The numbers of one step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamWStep {
    /// Which step it is, from 1: the moments' bias is corrected for it.
    pub number: u64,
    /// The step's size.
    pub learning_rate: f64,
    /// How much of the mean of the gradients is kept.
    pub beta1: f64,
    /// How much of the mean of their squares is kept.
    pub beta2: f64,
    /// Added to the divisor.
    pub eps: f64,
    /// The share of the parameter, times the learning rate, that goes.
    pub weight_decay: f64,
}

/// One step of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with PyTorch's order of operations, for the gradient
/// g = scale * `gradient` and step t:
///
/// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
/// p = (1 - learning_rate weight_decay) p - learning_rate m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
///
/// `parameter`, `mean` (m) and `square` (v) are overwritten: whatever else shares their memory sees it, so a tape that was
/// recorded before must have been walked. `scale` has one element; if it is not finite, nothing changes.
#[track_caller]
pub fn adamw_(parameter: &Tensor, mean: &Tensor, square: &Tensor, gradient: &Tensor, scale: &Tensor, step: &AdamWStep) {
    let shape = parameter.shape();
    let fits = |x: &Tensor| x.dtype() == DType::F32 && x.shape() == shape;
    assert!(
        [parameter, mean, square, gradient].into_iter().all(fits) && scale.elements() == 1,
        "[adamw_] expected four f32 tensors of one shape and a scale of one element, got {parameter:?}, {mean:?}, {square:?}, {gradient:?} and {scale:?}"
    );
    assert!([parameter, mean, square].into_iter().all(Tensor::is_whole), "[adamw_] expected tensors that are no views");
    assert!(step.number > 0, "[adamw_] expected a step from 1, got 0");
    let correction = |beta: f64| 1.0 - beta.powf(step.number as f64);
    let params = Params {
        elements: parameter.elements() as u32,
        keep: (1.0 - step.learning_rate * step.weight_decay) as f32,
        beta1: step.beta1 as f32,
        rest1: (1.0 - step.beta1) as f32,
        beta2: step.beta2 as f32,
        rest2: (1.0 - step.beta2) as f32,
        eps: step.eps as f32,
        rate: (step.learning_rate / correction(step.beta1)) as f32,
        root: (1.0 / correction(step.beta2).sqrt()) as f32,
    };
    dispatch::<AdamW>(params, &[parameter, mean, square, &gradient.whole(), &scale.whole()]);
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    /// What decay leaves of the parameter.
    keep: f32,
    beta1: f32,
    /// 1 - beta1, before either was rounded.
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
    /// The learning rate with the mean's bias correction.
    rate: f32,
    /// The correction of the square's root.
    root: f32,
}

struct AdamW;

impl Kernel for AdamW {
    type Params = Params;
    const NAME: &'static str = "adamw";
    const ACCESS: &'static [Access] = &[Access::Update, Access::Update, Access::Update, Access::Read, Access::Read];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("adamw", |p| grid(p.elements as usize, 1024))];
    const ELEMENTWISE: Option<&'static Elementwise<Params>> = Some(&Elementwise {
        elements: |p| Some(p.elements as usize),
        part: |p, range| Params { elements: range.len() as u32, ..*p },
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: 14 * u64::from(p.elements), bytes: 28 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (parameter, mean, square) = (io.real_mut(0), io.real_mut(1), io.real_mut(2));
        let (gradient, scale) = (io.real(3), io.real(4)[0]);
        if !scale.to_f64().is_finite() {
            return;
        }
        let [keep, beta1, rest1, beta2, rest2, eps, rate, root] =
            [p.keep, p.beta1, p.rest1, p.beta2, p.rest2, p.eps, p.rate, p.root].map(R::from_f32);
        const CHUNK: usize = 16 * 1024;
        let chunks = parameter.par_chunks_mut(CHUNK).zip(mean.par_chunks_mut(CHUNK)).zip(square.par_chunks_mut(CHUNK));
        chunks.zip(gradient.par_chunks(CHUNK)).for_each(|(((parameter, mean), square), gradient)| {
            parallel::vectorized(
                #[inline(always)]
                || {
                    for (((x, m), v), &g) in parameter.iter_mut().zip(mean).zip(square).zip(gradient) {
                        let g = scale * g;
                        *m = beta1 * *m + rest1 * g;
                        *v = beta2 * *v + rest2 * g * g;
                        *x = keep * *x - rate * *m / (v.sqrt() * root + eps);
                    }
                },
            );
        });
    }
}

fn cases() -> Vec<Case> {
    let step = |number| AdamWStep { number, learning_rate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
    let case = move |label: String, size: usize, scale: f32, number: u64| {
        let square: Vec<f32> = (0..size).map(|at| 0.1 + at as f32 * 0.25).collect();
        let inputs = [Input::fixed([size]), Input::fixed([size]), Input::given([size], &square), Input::fixed([size])];
        Case::new(label, inputs, move |x| {
            adamw_(&x[0], &x[1], &x[2], &x[3], &full(x[0].device(), scale, [1]), &step(number));
            x[..3].to_vec()
        })
    };
    let mut cases: Vec<Case> = EDGES.map(|size| case(format!("adamw {size}"), size, 1.0, 1)).into();
    cases.push(case("adamw of a clipped gradient".into(), 100, 0.25, 1000));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn a_scale_that_is_not_finite_changes_nothing() {
        let device = Device::cpu();
        let step = AdamWStep { number: 1, learning_rate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let [x, m, v, g] = [1.0, 2.0, 3.0, f32::NAN].map(|value| device.tensor(&[value], [1]));
            adamw_(&x, &m, &v, &g, &device.tensor(&[bad], [1]), &step);
            assert_eq!([x, m, v].map(|x| x.item().unwrap()), [1.0, 2.0, 3.0], "scale {bad}");
        }
    }
}
