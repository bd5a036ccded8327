//! What both backward kernels take of each query.

use bytemuck::{Pod, Zeroable};

use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Cost, Io, Kernel, Shader};
use crate::ops::team::{self, Rows};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};

/// The log sum [B, T, H] of each query, and the product of its output [B, T, H, D] and that's gradient: [B T H, 2].
pub(super) fn statistics(log_sums: &Tensor, output: &Tensor, grad: &Tensor) -> Tensor {
    let (rows, width) = (log_sums.elements(), output.last_size());
    let y = grad.device().empty([rows, 2], DType::F32);
    dispatch::<Statistics>(Params { rows: rows as u32, width: width as u32 }, &[log_sums, output, grad, &y]);
    y
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    rows: u32,
    width: u32,
}

impl Rows for Params {
    fn size(&self) -> [u32; 2] {
        [self.rows, self.width]
    }
}

/// Log sums, output, its gradient -> statistics.
pub(super) struct Statistics;

impl Kernel for Statistics {
    type Params = Params;
    const NAME: &'static str = "attention_statistics";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &team::shaders("attention_statistics_scalars", "attention_statistics_vectors", "attention_statistics_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn cost(p: &Params) -> Cost {
        let (rows, elements) = (u64::from(p.rows), u64::from(p.rows) * u64::from(p.width));
        Cost { flops: 2 * elements, bytes: 8 * elements + 12 * rows }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (log_sums, output, grad, statistics, width) = (io.real(0), io.real(1), io.real(2), io.real_mut(3), p.width as usize);
        parallel::rows(
            statistics,
            2,
            width,
            #[inline(always)]
            |first, _, chunk| {
                for (row, y) in chunk.chunks_exact_mut(2).enumerate() {
                    let at = first + row;
                    let [output, grad] = [output, grad].map(|x| &x[at * width..][..width]);
                    y.copy_from_slice(&[log_sums[at], output.iter().zip(grad).fold(R::ZERO, |sum, (&o, &g)| sum + o * g)]);
                }
            },
        );
    }
}
