//! Long products of few rows and columns: their sums are cut into parts, so that all of a GPU has work, and added up in order.

use bytemuck::{Pod, Zeroable};

use super::epilogue::{Ending, Epilogue};
use super::{Gradient, multiply_whole};
use crate::DType;
use crate::device::parallel;
use crate::kernel::{Access, Cost, Io, Kernel, Shader, Traits, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};

/// Into how many parts the sums of a product [M, K] x [K, N] are best cut: 1 where its tiles occupy the device.
pub(super) fn parts(traits: Option<&Traits>, [m, k, n]: [usize; 3]) -> usize {
    /// Workgroups that occupy the larger GPUs, and the shortest sums that are worth a workgroup.
    const WORKGROUPS: usize = 256;
    const SHORTEST: usize = 256;
    let is_real = traits.is_some_and(|traits| !traits.software);
    let tiles = m.div_ceil(64) * n.div_ceil(64);
    if !is_real || tiles == 0 {
        return 1;
    }
    let most = (WORKGROUPS / tiles).min(k / SHORTEST);
    // Parts of whole vectors, so that every shader may have them.
    (0..).map(|power| 1 << power).take_while(|parts| *parts <= most && k.is_multiple_of(8 * parts)).last().unwrap_or(1)
}

/// The product of two matrices, its sums cut into parts of equal length.
pub(super) fn multiply_in_parts(a: &Tensor, b: &Tensor, epilogue: &Epilogue, gradient: Gradient, parts: usize) -> Tensor {
    let [m, k, n] = [a.size(0), a.size(1), b.size(1)];
    let a = a.reshape([m, parts, k / parts]).permute(&[1, 0, 2]);
    let b = b.reshape([parts, k / parts, n]);
    let sums = multiply_whole(&a, &b, &Epilogue::default(), gradient);
    let y = a.device().empty([m, n], DType::F32);
    let [bias, residual] = [epilogue.bias, epilogue.residual].map(|x| x.map_or(sums.clone(), |x| x.detach().whole()));
    let params = Params { elements: (m * n) as u32, columns: n as u32, parts: parts as u32, ending: Ending::new(epilogue) };
    dispatch::<SumParts>(params, &[&sums, &sums, &bias, &residual, &y]);
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

/// Sums [parts, M, N], nothing in b's place, bias, residual -> y [M, N].
pub(super) struct SumParts;

impl Kernel for SumParts {
    type Params = Params;
    const NAME: &'static str = "matmul_parts";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("matmul_parts", |p: &Params| grid(p.elements as usize, 256))
            .with(|p| p.ending.constants(false))];
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
        parallel::elements(y, #[inline(always)] |first, y| {
            for (at, y) in y.iter_mut().enumerate() {
                let parts = (0..p.parts as usize).map(|part| sums[part * p.elements as usize + first + at]);
                *y += scale * parts.fold(R::ZERO, |sum, part| sum + part);
            }
        });
        p.ending.end(y, residual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_grids_of_long_sums_on_real_gpus_are_cut() {
        let real = Traits::default();
        assert_eq!(parts(Some(&real), [64, 4096, 64]), 16);
        assert_eq!(parts(Some(&real), [1024, 4096, 16]), 16);
        assert_eq!(parts(Some(&real), [4096, 4096, 4096]), 1);
        assert_eq!(parts(Some(&real), [64, 4096 + 8, 64]), 1);
        assert_eq!(parts(Some(&real), [0, 4096, 64]), 1);
        assert_eq!(parts(Some(&Traits { software: true, ..real }), [64, 4096, 64]), 1);
        assert_eq!(parts(None, [64, 4096, 64]), 1);
    }
}
