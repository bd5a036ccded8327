//! Copies of views, and views put back among zeros.

use bytemuck::{Pod, Zeroable};

use super::view::View;
use super::{Op, cast};
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Data, DataMut, Elementwise, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "copy", kernels: &[AnyKernel::of::<Copy>(), AnyKernel::of::<Pad>()], cases };

/// The elements of a view in a buffer of its own in row-major order.
#[track_caller]
pub fn copy(x: &Tensor) -> Tensor {
    if matches!(x.dtype(), DType::F16 | DType::BF16) {
        // By way of f32, which holds each of them.
        return cast(&copy(&cast(x, DType::F32)), x.dtype());
    }
    let y = x.empty_like();
    copy_into(x, &y);
    y.with_rule("copy", [x], |g, _| [Some(g.clone())])
}

/// Puts the elements of x into y, of the same shape and filling its buffer.
pub(crate) fn copy_into(x: &Tensor, y: &Tensor) {
    let params = CopyParams { source: View::new(x.layout()), elements: x.elements() as u32, unused: [0; 3] };
    dispatch::<Copy>(params, &[x, y]);
}

impl Tensor {
    /// Moves the elements of a tensor that fills its buffer to a part of a larger one's, from `start` on. All handles on them
    /// follow.
    pub(crate) fn move_into(&self, larger: &Tensor, start: usize) {
        let fits = self.can_move() && start.is_multiple_of(BufferRef::PART);
        assert!(fits, "[move_into] expected f32 that fills a buffer in whole parts, got {self:?}, to {start}");
        let part = larger.cut(start, self.shape());
        copy_into(self, &part);
        self.settle_in(part);
    }
}

/// x at `start..` of an axis of `size`, with zeros around it. The derivative is the slice's gradient.
#[track_caller]
pub fn pad(x: &Tensor, axis: usize, start: usize, size: usize) -> Tensor {
    let part = x.size(axis);
    assert!(start + part <= size, "[pad] expected {start} + {part} to fit into {size}");
    let y = x.device().empty(x.shape().with(axis, size), DType::F32);
    let params = PadParams {
        elements: y.elements() as u32,
        start: start as u32,
        part: part as u32,
        whole: size as u32,
        inner: x.shape()[axis + 1..].iter().product::<usize>() as u32,
    };
    dispatch::<Pad>(params, &[&x.detach().whole(), &y]);
    y.with_rule("pad", [x], move |g, _| [Some(g.slice(axis, start..start + part))])
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct CopyParams {
    source: View,
    elements: u32,
    unused: [u32; 3],
}

struct Copy;

impl Kernel for Copy {
    type Params = CopyParams;
    const NAME: &'static str = "copy";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<CopyParams>] = &[Shader::new("copy", |p: &CopyParams| grid(p.elements as usize, 1024))
        .with(|p| vec![("IN_FOURS", p.source.is_in_fours().into())])];
    const ELEMENTWISE: Option<&'static Elementwise<CopyParams>> = Some(&Elementwise {
        elements: |p| p.source.is_dense().then_some(p.elements as usize),
        part: |p, range| CopyParams { source: p.source.part(range.len()), elements: range.len() as u32, ..*p },
    });
    fn copies(p: &CopyParams) -> bool {
        p.source.is_dense()
    }
    fn cost(p: &CopyParams) -> Cost {
        Cost { flops: 0, bytes: 8 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &CopyParams, io: &mut Io<R>) {
        match (io.data(0), io.data_mut(1)) {
            (Data::Real(x), DataMut::Real(y)) => gather_rows(&p.source, x, y),
            (Data::U32(x), DataMut::U32(y)) => gather_rows(&p.source, x, y),
            _ => unreachable!("[copy] expected f32 or u32 on both sides"),
        }
    }
}

fn gather_rows<T: std::marker::Copy + Send + Sync>(from: &View, x: &[T], y: &mut [T]) {
    let (width, step) = (from.row(), from.step());
    parallel::rows(
        y,
        width,
        1,
        #[inline(always)]
        |first, _, chunk| {
            for (row, y) in chunk.chunks_exact_mut(width).enumerate() {
                let x = &x[from.row_start(first + row)..];
                match step {
                    1 => y.copy_from_slice(&x[..width]),
                    _ => y.iter_mut().enumerate().for_each(|(at, y)| *y = x[at * step]),
                }
            }
        },
    );
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct PadParams {
    elements: u32,
    start: u32,
    part: u32,
    whole: u32,
    inner: u32,
}

struct Pad;

impl Kernel for Pad {
    type Params = PadParams;
    const NAME: &'static str = "pad";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<PadParams>] = &[Shader::new("pad", |p| grid(p.elements as usize, 256))];
    fn cost(p: &PadParams) -> Cost {
        let written = u64::from(p.elements);
        Cost { flops: 0, bytes: 4 * (written + written * u64::from(p.part) / u64::from(p.whole.max(1))) }
    }
    fn run<R: Real>(p: &PadParams, io: &mut Io<R>) {
        let (x, y) = (io.real(0), io.real_mut(1));
        let (start, part, inner) = (p.start as usize, p.part as usize, p.inner as usize);
        let whole = p.whole as usize * inner;
        parallel::rows(
            y,
            whole,
            1,
            #[inline(always)]
            |first, _, chunk| {
                for (row, y) in chunk.chunks_exact_mut(whole).enumerate() {
                    let from = (first + row) * part * inner;
                    y[..start * inner].fill(R::ZERO);
                    y[start * inner..(start + part) * inner].copy_from_slice(&x[from..from + part * inner]);
                    y[(start + part) * inner..].fill(R::ZERO);
                }
            },
        );
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::new("copy of a transposed matrix", [Input::any([65, 257])], |x| vec![copy(&x[0].transpose())]),
        Case::new("copy of a slice of permuted heads", [Input::any([2, 9, 3, 8])], |x| {
            vec![copy(&x[0].permute(&[0, 2, 1, 3]).slice(2, 3..8))]
        }),
        Case::new("copy of six axes", [Input::any([2, 3, 2, 2, 3, 2])], |x| vec![copy(&x[0].permute(&[5, 3, 1, 0, 2, 4]))]),
        Case::new("copy of an expanded row", [Input::any([1, 63])], |x| vec![copy(&x[0].expand([4, 63]))]),
        Case::new("copy of nothing", [Input::any([0, 5])], |x| vec![copy(&x[0].transpose())]),
        Case::new("pad the middle axis", [Input::any([3, 4, 5])], |x| vec![pad(&x[0], 1, 2, 9)]),
        Case::new("pad the last axis", [Input::any([3, 64])], |x| vec![pad(&x[0], 1, 0, 65)]),
        Case::new("pad nothing", [Input::any([3, 0])], |x| vec![pad(&x[0], 1, 1, 4)]),
        Case::new("slice and its gradient", [Input::any([7, 6])], |x| vec![copy(&x[0].slice(0, 2..5).slice(1, 1..2))]),
    ]
}
