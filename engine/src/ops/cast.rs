//! Conversion between storage types.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use super::{Op, matmul::storage};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Data, DataMut, Elementwise, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "cast", kernels: &[AnyKernel::of::<Cast>()], cases };

/// x in another floating-point type, rounded to nearest even. The gradient of an f32 passes through unrounded; narrow types
/// take none.
#[track_caller]
pub fn cast(x: &Tensor, to: DType) -> Tensor {
    assert!(x.dtype() != DType::U32 && to != DType::U32, "[cast] expected floating-point types, got {} to {to}", x.dtype());
    if x.dtype() == to {
        return x.clone();
    }
    // The whole buffer is converted, so that a view stays the same view.
    let y = x.like_in(to);
    dispatch::<Cast>(Params { elements: x.buffer_elements() as u32, from: storage(x.dtype()), to: storage(to) }, &[x, &y]);
    y.with_rule("cast", [x], |g, _| [Some(g.clone())])
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    from: u32,
    to: u32,
}

struct Cast;

impl Kernel for Cast {
    type Params = Params;
    const NAME: &'static str = "cast";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("cast", |p: &Params| grid(p.elements.div_ceil(2) as usize, 256))
        .with(|p| vec![("FROM", p.from.into()), ("TO", p.to.into())])];
    const ELEMENTWISE: Option<&'static Elementwise<Params>> = Some(&Elementwise {
        elements: |p| Some(p.elements as usize),
        part: |p, range| Params { elements: range.len() as u32, ..*p },
    });
    fn cost(p: &Params) -> Cost {
        let width = |dtype: u32| if dtype == 0 { 4 } else { 2 };
        Cost { flops: 0, bytes: (width(p.from) + width(p.to)) * u64::from(p.elements) }
    }
    fn run<R: Real>(_: &Params, io: &mut Io<R>) {
        match (io.data(0), io.data_mut(1)) {
            (Data::Real(x), DataMut::F16(y)) => convert(x, y, |x| f16::from_f32(x.to_f32())),
            (Data::Real(x), DataMut::BF16(y)) => convert(x, y, |x| bf16::from_f32(x.to_f32())),
            (Data::F16(x), DataMut::Real(y)) => convert(x, y, |x| R::from_f32(x.to_f32())),
            (Data::BF16(x), DataMut::Real(y)) => convert(x, y, |x| R::from_f32(x.to_f32())),
            (Data::F16(x), DataMut::BF16(y)) => convert(x, y, |x| bf16::from_f32(x.to_f32())),
            (Data::BF16(x), DataMut::F16(y)) => convert(x, y, |x| f16::from_f32(x.to_f32())),
            _ => unreachable!("[cast] expected two floating-point types that differ"),
        }
    }
}

fn convert<A: Copy + Sync, B: Send>(x: &[A], y: &mut [B], f: impl Fn(A) -> B + Sync) {
    parallel::elements(
        y,
        #[inline(always)]
        |first, y| y.iter_mut().zip(&x[first..]).for_each(|(y, &x)| *y = f(x)),
    );
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for narrow in [DType::F16, DType::BF16] {
        for size in EDGES {
            cases.push(Case::new(format!("cast through {narrow} {size}"), [Input::fixed([size])], move |x| {
                vec![cast(&cast(&x[0], narrow), DType::F32)]
            }));
        }
        cases.push(Case::new(format!("cast of a {narrow} view"), [Input::fixed([6, 5])], move |x| {
            vec![cast(&cast(&x[0], narrow).transpose().slice(0, 1..4), DType::F32)]
        }));
    }
    cases
}
