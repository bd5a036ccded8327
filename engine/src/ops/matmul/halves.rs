//! Operands of products as f16, and what they are multiplied by to be within its range.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use half::f16;
use rayon::prelude::*;

use super::params::Side;
use super::storage;
use crate::DType;
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::kernel::{Access, Constants, Cost, Data, DataMut, Io, Kernel, Lowering, Shader, grid};
use crate::ops::max_axis;
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};

/// [1]: the largest finite magnitude in x's buffer. Where x is a view of a part, that bounds its own.
pub(in crate::ops) fn peak(x: &Tensor) -> Tensor {
    assert!(x.dtype() == DType::F32, "[peak] expected f32, got {x:?}");
    max_axis(&peaks(x), 0).reshape([1])
}

/// x's buffer as f16 and the factor on it [1], a power of two: what the laws run.
pub(super) fn halves(x: &Tensor) -> [Tensor; 2] {
    let params = Params::new(x.buffer_elements(), x.dtype());
    let [halves, scale] = [(params.halves(), DType::F16), (1, DType::F32)].map(|(size, dtype)| x.device().empty([size], dtype));
    dispatch::<Halve>(params, &[x, &peaks(x), &halves, &scale]);
    [halves, scale]
}

fn peaks(x: &Tensor) -> Tensor {
    let params = Params::new(x.buffer_elements(), x.dtype());
    let peaks = x.device().empty([params.peaks as usize], DType::F32);
    dispatch::<Peaks>(params, &[x, &peaks]);
    peaks
}

/// The halves of an operand where its product is lowered, and their factor: of all of x, or of the part that holds what the product reaches
/// where that is less than half of it. Peaks of all stay as long as the buffer does, and halves until others take their place: a frozen
/// weight is looked at once, and not kept twice.
pub(super) fn lowered(x: BufferRef, reached: Range<usize>, side: &mut Side, into: &mut Lowering) -> [BufferRef; 2] {
    let first = reached.start / BufferRef::PART * BufferRef::PART;
    let end = reached.end.next_multiple_of(BufferRef::PART).min(x.elements);
    let is_little = 2 * (end - first) < x.elements;
    let x = if is_little { x.part(first, end - first) } else { x };
    side.offset -= if is_little { first as u32 } else { 0 };
    (side.dtype, side.scaled) = (storage(DType::F16), 1);
    let params = Params::new(x.elements, x.dtype);
    into.found_for_now::<Halve, 2>(x, [(DType::F16, params.halves()), (DType::F32, 1)], |[halves, scale], into| {
        let size = params.peaks as usize;
        let find = |peaks, into: &mut Lowering| into.dispatch::<Peaks>(params, &[x, peaks]);
        let peaks = if is_little {
            // There may be any number of such parts, as of data that is gone through.
            let peaks = into.buffer(DType::F32, size);
            find(peaks, into);
            peaks
        } else {
            let [peaks] = into.found::<Peaks, 1>(x, [(DType::F32, size)], |[peaks], into| find(peaks, into));
            peaks
        };
        into.dispatch::<Halve>(params, &[x, peaks, halves, scale]);
    })
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    elements: u32,
    /// How they are stored, as `storage.wgsl` numbers it: f32 or bf16.
    dtype: u32,
    /// How many words of x, of 32 bits, each peak is of.
    span: u32,
    /// How many peaks there are.
    peaks: u32,
    /// How many words the halves lie in.
    pairs: u32,
}

impl Params {
    fn new(elements: usize, dtype: DType) -> Params {
        /// So many that one workgroup goes through them at once.
        const MOST_PEAKS: u32 = 256;
        const LEAST_SPAN: u32 = 4096;
        let words = (elements * dtype.size()).div_ceil(4) as u32;
        let span = words.div_ceil(MOST_PEAKS).max(LEAST_SPAN);
        let peaks = words.div_ceil(span).max(1);
        // Shaders read eight at a time.
        let halves = elements.next_multiple_of(8);
        Params { elements: elements as u32, dtype: storage(dtype), span, peaks, pairs: (halves / 2) as u32 }
    }

    fn halves(&self) -> usize {
        2 * self.pairs as usize
    }

    fn bytes(&self) -> u64 {
        let width = if self.dtype == 0 { 4 } else { 2 };
        width * u64::from(self.elements)
    }

    fn constants(&self) -> Constants {
        vec![("DTYPE", self.dtype.into())]
    }
}

/// x -> peaks: the largest finite magnitudes of its parts.
pub(super) struct Peaks;

impl Kernel for Peaks {
    type Params = Params;
    const NAME: &'static str = "peaks";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("matmul_peaks", |p: &Params| [p.peaks, 1, 1]).with(Params::constants)];
    fn cost(p: &Params) -> Cost {
        Cost { flops: p.elements.into(), bytes: p.bytes() }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        fn largest<T: Sync, R: Real>(x: &[T], span: usize, peaks: &mut [R], real: impl Fn(&T) -> R + Sync) {
            let finite = |x: R| if x.to_f64().is_finite() { x.abs() } else { R::ZERO };
            peaks.par_iter_mut().enumerate().for_each(|(at, peak)| {
                let part = &x[(at * span).min(x.len())..((at + 1) * span).min(x.len())];
                *peak = part.iter().fold(R::ZERO, |most, x| most.max(finite(real(x))));
            });
        }
        let (x, peaks, span) = (io.data(0), io.real_mut(1), p.span as usize);
        match x {
            Data::Real(x) => largest(x, span, peaks, |&x| x),
            Data::BF16(x) => largest(x, 2 * span, peaks, |x| R::from_f32(x.to_f32())),
            Data::F16(_) | Data::U32(_) => unreachable!("[peaks] expected f32 or bf16"),
        }
    }
}

/// x, its peaks -> x times a factor as f16, and behind it zeros up to whole vectors of eight; the factor.
pub(super) struct Halve;

impl Kernel for Halve {
    type Params = Params;
    const NAME: &'static str = "halves";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("matmul_halves", |p: &Params| grid(p.pairs as usize, 2048)).with(Params::constants)];
    fn cost(p: &Params) -> Cost {
        Cost { flops: p.elements.into(), bytes: p.bytes() + 4 * u64::from(p.pairs) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        fn halve<T: Sync>(x: &[T], halves: &mut [f16], scaled: impl Fn(&T) -> f32 + Sync) {
            parallel::elements(
                halves,
                #[inline(always)]
                |first, halves| {
                    let x = x.get(first..).unwrap_or_default();
                    let (halves, behind) = halves.split_at_mut(x.len().min(halves.len()));
                    halves.iter_mut().zip(x).for_each(|(half, x)| *half = f16::from_f32(scaled(x)));
                    behind.fill(f16::ZERO);
                },
            );
        }
        let (x, peaks, scale) = (io.data(0), io.real(1), io.real_mut(3));
        let DataMut::F16(halves) = io.data_mut(2) else { unreachable!("[halves] expected f16 to write") };
        let by = factor(peaks[..p.peaks as usize].iter().fold(R::ZERO, |most, &peak| most.max(peak)).to_f32());
        scale[0] = R::from_f32(by);
        match x {
            Data::Real(x) => halve(x, halves, |x| by * x.to_f32()),
            Data::BF16(x) => halve(x, halves, |x| by * x.to_f32()),
            Data::F16(_) | Data::U32(_) => unreachable!("[halves] expected f32 or bf16"),
        }
    }
}

/// The power of two that brings a peak between 2^14 and 2^15: f16 ends just below 2^16, and rounds to zero what is below 2^-25. A peak
/// from 2^-6 on and below 2^15 stays, so that most rows do not depend on those beside them; so does one of no normal number.
fn factor(peak: f32) -> f32 {
    let exponent = (peak.to_bits() >> 23) as i32;
    let stays = exponent == 0 || (121..142).contains(&exponent);
    f32::from_bits(if stays { 127 } else { (268 - exponent).clamp(1, 253) as u32 } << 23)
}
