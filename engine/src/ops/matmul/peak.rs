//! The largest finite magnitude of a tensor, from which products of f16 operands take that operand's scale.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::storage;
use crate::DType;
use crate::buffer::BufferRef;
use crate::kernel::{Access, Cost, Data, Io, Kernel, Lowering, Shader, grid};
use crate::ops::full::{fill, full};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};

/// [1]: the largest finite magnitude in x's buffer. Where x is a view of a part, that bounds its own.
pub(in crate::ops) fn peak(x: &Tensor) -> Tensor {
    assert!(x.dtype() == DType::F32, "[peak] expected f32, got {x:?}");
    let peak = full(x.device(), 0.0, [1]);
    dispatch::<Peak>(Params::new(x.buffer_elements(), x.dtype()), &[x, &peak]);
    peak
}

/// The same of a buffer, where it is lowered.
pub(super) fn lowered(x: BufferRef, into: &mut Lowering) -> BufferRef {
    into.found(x, 1, |peak, into| {
        fill(peak, 0.0, into);
        into.dispatch::<Peak>(Params::new(x.elements, x.dtype), &[x, peak]);
    })
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    elements: u32,
    /// How they are stored, as `storage.wgsl` numbers it: f32 or bf16.
    dtype: u32,
}

impl Params {
    fn new(elements: usize, dtype: DType) -> Params {
        Params { elements: elements as u32, dtype: storage(dtype) }
    }

    /// Words of 32 bits that they lie in.
    fn words(&self) -> u32 {
        if self.dtype == 0 { self.elements } else { self.elements.div_ceil(2) }
    }
}

/// x -> peak, which holds 0 before.
pub(super) struct Peak;

impl Kernel for Peak {
    type Params = Params;
    const NAME: &'static str = "peak";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Update];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("matmul_peak", |p: &Params| grid(p.words() as usize, 4096)).with(|p| vec![("DTYPE", p.dtype.into())])];
    fn cost(p: &Params) -> Cost {
        Cost { flops: p.elements.into(), bytes: 4 * u64::from(p.words()) }
    }
    fn run<R: Real>(_: &Params, io: &mut Io<R>) {
        let (x, peak) = (io.data(0), io.real_mut(1));
        let finite = |x: R| if x.to_f64().is_finite() { x.abs() } else { R::ZERO };
        let most = |a: R, b: R| a.max(b);
        peak[0] = match x {
            Data::Real(x) => x.par_iter().map(|&x| finite(x)).reduce(|| peak[0], most),
            Data::BF16(x) => x.par_iter().map(|x| finite(R::from_f32(x.to_f32()))).reduce(|| peak[0], most),
            Data::F16(_) | Data::U32(_) => unreachable!("[peak] expected f32 or bf16"),
        };
    }
}
