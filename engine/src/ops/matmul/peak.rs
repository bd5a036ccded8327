//! The largest magnitude of a tensor, from which products of f16 operands take a gradient's scale.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::DType;
use crate::buffer::BufferRef;
use crate::kernel::{Access, Cost, Io, Kernel, Lowering, Shader, grid};
use crate::ops::full::{fill, full};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};

/// [1]: the largest magnitude in x's buffer. Where x is a view of a part, that bounds its own.
pub(in crate::ops) fn peak(x: &Tensor) -> Tensor {
    assert!(x.dtype() == DType::F32, "[peak] expected f32, got {x:?}");
    let peak = full(x.device(), 0.0, [1]);
    dispatch::<Peak>(Params { elements: x.buffer_elements() as u32 }, &[x, &peak]);
    peak
}

/// The same of a buffer, where it is lowered.
pub(super) fn lowered(x: BufferRef, into: &mut Lowering) -> BufferRef {
    into.found(x, 1, |peak, into| {
        fill(peak, 0.0, into);
        into.dispatch::<Peak>(Params { elements: x.elements as u32 }, &[x, peak]);
    })
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    elements: u32,
}

/// x -> peak, which holds 0 before.
pub(super) struct Peak;

impl Kernel for Peak {
    type Params = Params;
    const NAME: &'static str = "peak";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Update];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("matmul_peak", |p| grid(p.elements as usize, 4096))];
    fn cost(p: &Params) -> Cost {
        Cost { flops: p.elements.into(), bytes: 4 * u64::from(p.elements) }
    }
    fn run<R: Real>(_: &Params, io: &mut Io<R>) {
        let (x, peak) = (io.real(0), io.real_mut(1));
        peak[0] = x.par_iter().map(|x| x.abs()).reduce(|| peak[0], |a, b| a.max(b));
    }
}
