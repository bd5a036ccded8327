//! Rows written into a tensor that stays where it is: how a key-value cache grows.

use bytemuck::{Pod, Zeroable};

use super::{Op, copy};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "write_rows", kernels: &[AnyKernel::of::<WriteRows>()], cases };

/// Writes x [B, T, ..] over rows `start..start + T` of axis 1 of `target` [B, C, ..], in place. Nothing on the tape may
/// depend on what is overwritten, so neither side may require a gradient.
#[track_caller]
pub fn write_rows(target: &Tensor, x: &Tensor, start: usize) {
    let (to, from) = (target.shape(), x.shape());
    let fits = to.len() >= 2 && to.len() == from.len() && to[0] == from[0] && to[2..] == from[2..] && start + from[1] <= to[1];
    assert!(fits, "[write_rows] expected rows that fit into {to:?} from row {start}, got {from:?}");
    let frozen = !target.requires_grad() && !x.requires_grad();
    assert!(frozen && x.dtype() == DType::F32, "[write_rows] expected f32 off the tape, got {x:?}");
    let row = from[2..].iter().product::<usize>();
    let params = Params {
        elements: x.elements() as u32,
        part: (from[1] * row) as u32,
        whole: (to[1] * row) as u32,
        start: (start * row) as u32,
    };
    dispatch::<WriteRows>(params, &[&x.whole(), target]);
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    part: u32,
    whole: u32,
    start: u32,
}

struct WriteRows;

impl Kernel for WriteRows {
    type Params = Params;
    const NAME: &'static str = "write_rows";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Update];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("write_rows", |p| grid(p.elements as usize, 256))];
    fn cost(p: &Params) -> Cost {
        Cost { flops: 0, bytes: 8 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, target) = (io.real(0), io.real_mut(1));
        let (part, start) = (p.part as usize, p.start as usize);
        if part > 0 {
            parallel::rows(target, p.whole as usize, 1, #[inline(always)] |first, _, chunk| {
                for (batch, target) in chunk.chunks_exact_mut(p.whole as usize).enumerate() {
                    target[start..start + part].copy_from_slice(&x[(first + batch) * part..][..part]);
                }
            });
        }
    }
}

fn cases() -> Vec<Case> {
    [(1, 0, 1), (5, 3, 2), (64, 1, 63), (65, 65, 0)]
        .map(|(capacity, start, rows)| {
            let inputs = [Input::fixed([2, capacity, 3]), Input::fixed([2, rows, 3])];
            Case::new(format!("{rows} rows into {capacity} at {start}"), inputs, move |x| {
                let target = copy(&x[0]);
                write_rows(&target, &x[1], start);
                vec![target]
            })
        })
        .into()
}
