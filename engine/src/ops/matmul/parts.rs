//! Long products of few rows and columns: their sums are cut into parts, so that all of a GPU has work, and added up in order.

use bytemuck::{Pod, Zeroable};

use super::arguments;
use super::epilogue::{Ending, Epilogue};
use super::params::{Gradient, Params as Product, Side};
use super::product::Matmul;
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Cost, Io, Kernel, Lowering, Shader, Traits, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};

impl Product {
    /// Into how many parts the sums of a product are best cut: 1 where its tiles occupy the device, or it is of many matrices.
    pub fn parts(&self, traits: &Traits) -> u32 {
        /// Workgroups that occupy the larger GPUs, and the shortest sums that are worth a workgroup.
        const WORKGROUPS: u32 = 256;
        const SHORTEST: u32 = 256;
        let tiles = self.m.div_ceil(64) * self.n.div_ceil(64);
        if traits.software || tiles == 0 || self.m == 1 || self.outer * self.inner != 1 {
            return 1;
        }
        let most = (WORKGROUPS / tiles).min(self.k / SHORTEST);
        // Parts of whole vectors, so that every shader may have them.
        (0..).map(|power| 1 << power).take_while(|parts| *parts <= most && self.k.is_multiple_of(8 * parts)).last().unwrap_or(1)
    }

    /// The products of the parts, as so many matrices.
    pub fn in_parts(&self, parts: u32) -> Product {
        let k = self.k / parts;
        let side = |side: Side, along_k: u32| Side { inner: along_k * k, ..side };
        let (a, b) = (side(self.a, self.a.column), side(self.b, self.b.row));
        if parts == 1 { *self } else { Product { k, inner: parts, a, b, ending: Ending::new(&Epilogue::default()), ..*self } }
    }
}

/// A product of two matrices whose sums are cut into parts of equal length.
pub(super) fn lowered(p: &Product, buffers: &[BufferRef], parts: u32, into: &mut Lowering) {
    let [a, b, bias, residual, y, peak] = buffers[..] else { unreachable!("a product has six buffers") };
    let sums = into.buffer(DType::F32, (parts * p.m * p.n) as usize);
    into.dispatch::<Matmul>(p.in_parts(parts), &[a, b, a, a, sums, peak]);
    into.dispatch::<SumParts>(Params::new(p, parts), &[sums, sums, bias, residual, y]);
}

/// The product of two matrices in so many parts on any device: what the laws run.
pub(super) fn multiply_in_parts(a: &Tensor, b: &Tensor, epilogue: &Epilogue, parts: u32) -> Tensor {
    let (p, a, b) = arguments(a, b, epilogue, Gradient::None);
    let [sums, y] = [[parts * p.m, p.n], [p.m, p.n]].map(|shape| a.device().empty(shape.map(|size| size as usize), DType::F32));
    dispatch::<Matmul>(p.in_parts(parts), &[&a, &b, &a, &a, &sums, &a]);
    let [bias, residual] = [epilogue.bias, epilogue.residual].map(|x| x.map_or(sums.clone(), |x| x.detach().whole()));
    dispatch::<SumParts>(Params::new(&p, parts), &[&sums, &sums, &bias, &residual, &y]);
    y
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    elements: u32,
    columns: u32,
    parts: u32,
    pub ending: Ending,
}

impl Params {
    fn new(p: &Product, parts: u32) -> Params {
        Params { elements: p.m * p.n, columns: p.n, parts, ending: p.ending }
    }
}

/// Sums [parts, M, N], nothing in b's place, bias, residual -> y [M, N].
pub(super) struct SumParts;

impl Kernel for SumParts {
    type Params = Params;
    const NAME: &'static str = "matmul_parts";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("matmul_parts", |p: &Params| grid(p.elements as usize, 256)).with(|p| p.ending.constants(false))];
    fn cost(p: &Params) -> Cost {
        let (elements, parts, columns) = (u64::from(p.elements), u64::from(p.parts), u64::from(p.columns));
        let reads = p.ending.reads(elements / columns.max(1), columns);
        Cost { flops: elements * parts, bytes: 4 * (elements * (parts + 1) + reads) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (sums, bias, residual, y) = (io.real(0), io.real(2), io.real(3), io.real_mut(4));
        if !p.ending.begin(y, p.columns as usize, bias, residual) {
            y.fill(R::ZERO);
        }
        let scale = R::from_f32(p.ending.scale);
        parallel::elements(
            y,
            #[inline(always)]
            |first, y| {
                for (at, y) in y.iter_mut().enumerate() {
                    let parts = (0..p.parts as usize).map(|part| sums[part * p.elements as usize + first + at]);
                    *y += scale * parts.fold(R::ZERO, |sum, part| sum + part);
                }
            },
        );
        p.ending.end(y, residual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_grids_of_long_sums_on_real_gpus_are_cut() {
        let parts = |[m, k, n]: [u32; 3], software: bool| {
            let side = Side { outer: 0, inner: 0, row: 0, column: 0, offset: 0 };
            let ending = Ending::new(&Epilogue::default());
            let product = Product { m, n, k, outer: 1, inner: 1, a: side, b: side, ending, dtype: 0, scaled: 0, turned: 0 };
            product.parts(&Traits { software, ..Traits::default() })
        };
        assert_eq!(parts([64, 4096, 64], false), 16);
        assert_eq!(parts([1024, 4096, 16], false), 16);
        assert_eq!(parts([4096, 4096, 4096], false), 1);
        assert_eq!(parts([64, 4096 + 8, 64], false), 1);
        assert_eq!(parts([0, 4096, 64], false), 1);
        assert_eq!(parts([64, 4096, 64], true), 1);
    }
}
