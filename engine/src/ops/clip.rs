//! Clipping gradients by their joint length.

use bytemuck::{Pod, Zeroable};

use super::{Op, add, full, sqrt, square, sum};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "clip", kernels: &[AnyKernel::of::<SquareSums>(), AnyKernel::of::<ClipScale>()], cases };

/// The Euclidean length of all gradients taken together, a scalar. Takes no gradient.
#[track_caller]
pub fn gradient_norm(gradients: &[&Tensor]) -> Tensor {
    let first = gradients.first().expect("[gradient_norm] expected at least one gradient");
    assert!(gradients.iter().all(|x| x.dtype() == DType::F32), "[gradient_norm] expected f32, got {gradients:?}");
    let runs = Tensor::runs([gradients], |_, _| true);
    let parts = |gradient: &Tensor| gradient.elements().div_ceil(PART);
    let sums = full(first.device(), 0.0, [runs.iter().map(|run| parts(&run.joined[0])).sum()]);
    let mut start = 0;
    for [gradient] in runs.iter().map(|run| &run.joined).filter(|[gradient]| gradient.elements() > 0) {
        let params = SumsParams { elements: gradient.elements() as u32, start: start as u32 };
        dispatch::<SquareSums>(params, &[&gradient.detach().whole(), &sums]);
        start += parts(gradient);
    }
    sqrt(&sum(&sums))
}

/// What to multiply gradients of length `norm` by so that they are no longer than `most`: min(1, most / (norm + 1e-6)), of shape
/// [1], as PyTorch's `clip_grad_norm_` does (Pascanu et al. 2013, arXiv:1211.5063). A norm that is not finite is handed on as it
/// is, so that the optimiser skips its step. Takes no gradient.
#[track_caller]
pub fn clip_scale(norm: &Tensor, most: f32) -> Tensor {
    assert!(norm.dtype() == DType::F32 && norm.elements() == 1, "[clip_scale] expected one f32, got {norm:?}");
    let y = norm.device().empty([1], DType::F32);
    dispatch::<ClipScale>(ScaleParams { most }, &[&norm.whole(), &y]);
    y
}

/// Elements whose squares are summed together, before the sums are.
const PART: usize = Elementwise::PART;
/// Invocations of a workgroup that sums a part.
const LANES: u32 = 256;

/// sums[start..]: the sums of squares of each `PART` of x.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct SumsParams {
    elements: u32,
    start: u32,
}

struct SquareSums;

impl SumsParams {
    fn parts(&self) -> usize {
        (self.elements as usize).div_ceil(PART)
    }
}

/// A part a workgroup.
const fn by_team(source: &'static str) -> Shader<SumsParams> {
    Shader::new(source, |p: &SumsParams| grid(p.parts(), 1))
        .with(|_| vec![("PART", PART as f64), ("LANES", LANES.into()), ("ROWS", 1.0)])
        .preferred(|_, traits| !traits.software)
}

impl Kernel for SquareSums {
    type Params = SumsParams;
    const NAME: &'static str = "square_sums";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Update];
    const SHADERS: &'static [Shader<SumsParams>] = &[
        Shader::new("square_sums_row", |p: &SumsParams| grid(p.parts(), 64)).with(|_| vec![("PART", PART as f64)]),
        by_team("square_sums_workgroup"),
        by_team("square_sums_subgroups").allowed(|_, traits| traits.teams_of_subgroups(LANES)),
    ];
    const ELEMENTWISE: Option<&'static Elementwise<SumsParams>> = Some(&Elementwise {
        elements: |p| Some(p.elements as usize),
        part: |p, range| SumsParams { elements: range.len() as u32, start: p.start + (range.start / PART) as u32 },
    });
    fn cost(p: &SumsParams) -> Cost {
        Cost { flops: 2 * u64::from(p.elements), bytes: 4 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &SumsParams, io: &mut Io<R>) {
        let (x, sums) = (io.real(0), io.real_mut(1));
        let parts = x.len().div_ceil(PART);
        parallel::rows(
            &mut sums[p.start as usize..][..parts],
            1,
            PART,
            #[inline(always)]
            |first, _, sums| {
                for (part, sum) in sums.iter_mut().enumerate() {
                    let start = (first + part) * PART;
                    *sum = parallel::lane_sum(&x[start..(start + PART).min(x.len())], |x| x * x);
                }
            },
        );
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ScaleParams {
    most: f32,
}

struct ClipScale;

impl Kernel for ClipScale {
    type Params = ScaleParams;
    const NAME: &'static str = "clip_scale";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<ScaleParams>] = &[Shader::new("clip_scale", |_| [1, 1, 1])];
    fn cost(_: &ScaleParams) -> Cost {
        Cost { flops: 3, bytes: 8 }
    }
    fn run<R: Real>(p: &ScaleParams, io: &mut Io<R>) {
        let (norm, y) = (io.real(0)[0], io.real_mut(1));
        let scale = R::from_f32(p.most) / (norm + R::from_f64(1e-6));
        y[0] = if norm.to_f64().is_finite() { scale.min(R::ONE) } else { norm };
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [EDGES.as_slice(), &[PART - 1, PART, PART + 1, 3 * PART + 5]].concat() {
        let inputs = [Input::fixed([3]), Input::fixed([size]), Input::fixed([2, 4])];
        let case = Case::new(format!("gradient_norm with {size}"), inputs, |x| vec![gradient_norm(&[&x[0], &x[1], &x[2]])]);
        let composed = |x: &[Tensor]| x.iter().map(|x| sum(&square(x))).reduce(|a, b| add(&a, &b)).expect("three");
        cases.push(case.terms(size).composed(move |x| vec![sqrt(&composed(x))]));
    }
    for norm in [0.0, 0.5, 1.0, 2.0, 1e30] {
        cases.push(Case::new(format!("clip_scale of {norm}"), [Input::given([1], &[norm])], |x| vec![clip_scale(&x[0], 1.0)]));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn a_norm_that_is_not_finite_is_handed_on() {
        let device = Device::cpu();
        for bad in [f32::NAN, f32::INFINITY] {
            let norm = gradient_norm(&[&device.tensor(&[1.0, bad], [2])]);
            assert!(!clip_scale(&norm, 1.0).item().unwrap().is_finite());
        }
    }
}
