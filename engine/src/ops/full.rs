//! A tensor of one value.

use bytemuck::{Pod, Zeroable};

use super::Op;
use crate::device::{Device, parallel};
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::shape::Shape;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "full", kernels: &[AnyKernel::of::<Full>()], cases };

/// A tensor of f32 whose every element is `value`.
pub fn full(device: &Device, value: f32, shape: impl Into<Shape>) -> Tensor {
    let y = device.empty(shape, DType::F32);
    dispatch::<Full>(Params { elements: y.elements() as u32, value }, &[&y]);
    y
}

impl Device {
    /// A tensor of zeros.
    pub fn zeros(&self, shape: impl Into<Shape>) -> Tensor {
        full(self, 0.0, shape)
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    value: f32,
}

struct Full;

impl Kernel for Full {
    type Params = Params;
    const NAME: &'static str = "full";
    const ACCESS: &'static [Access] = &[Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("full", |p| grid(p.elements as usize, 1024))];
    const ELEMENTWISE: Option<&'static Elementwise<Params>> = Some(&Elementwise {
        elements: |p| Some(p.elements as usize),
        part: |p, range| Params { elements: range.len() as u32, ..*p },
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: 0, bytes: 4 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        parallel::elements(
            io.real_mut(0),
            #[inline(always)]
            |_, y| y.fill(R::from_f32(p.value)),
        );
    }
}

fn cases() -> Vec<Case> {
    let case =
        |size: usize| Case::new(format!("full {size}"), [Input::fixed([1])], move |x| vec![full(x[0].device(), 2.5, [size])]);
    EDGES.map(case).into()
}
