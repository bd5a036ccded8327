//! Attention over parts of the keys, for few queries over many: each part is a batch row of the forward kernel, and this joins
//! what they give (Dao et al. 2023, "Flash-Decoding").

use bytemuck::{Pod, Zeroable};

use super::forward::{Forward, HIDDEN};
use super::params;
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Cost, Io, Kernel, Lowering, Shader, Traits, grid};
use crate::real::Real;

/// Keys that a part has at least.
const KEYS: u32 = 256;
/// Workgroups that occupy a GPU.
const WORKGROUPS: u32 = 128;

/// Into how many parts to cut the keys, where a kernel of tiles would have too few workgroups for the device.
pub(super) fn parts(p: &params::Params, traits: &Traits) -> u32 {
    let workgroups = p.batch * p.queries.div_ceil(64) * p.heads;
    if traits.software || workgroups == 0 || p.has_segments == 1 || p.parts > 1 {
        return 1;
    }
    (WORKGROUPS / workgroups).min(p.keys / KEYS).max(1)
}

/// The forward kernel over so many parts of the keys, and what joins them.
pub(super) fn lowered(p: &params::Params, buffers: &[BufferRef], parts: u32, into: &mut Lowering) {
    let [q, k, v, lengths, segments, output, log_sums] = buffers[..] else { unreachable!("attention has seven buffers") };
    let in_parts = p.in_parts(parts);
    let [outputs, part_log_sums] = [output, log_sums].map(|whole| into.buffer(DType::F32, whole.elements * parts as usize));
    into.dispatch::<Forward>(in_parts, &[q, k, v, lengths, segments, outputs, part_log_sums]);
    into.dispatch::<Join>(Params::new(&in_parts), &[outputs, part_log_sums, output, log_sums]);
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    /// Queries times heads.
    rows: u32,
    parts: u32,
    head_dim: u32,
    batches: u32,
}

impl Params {
    pub fn new(p: &params::Params) -> Params {
        Params { rows: p.queries * p.heads, parts: p.parts, head_dim: p.head_dim, batches: p.batch / p.parts }
    }

    fn elements(&self) -> usize {
        [self.batches, self.rows, self.head_dim].iter().map(|&size| size as usize).product()
    }
}

/// Outputs and log sums of the parts -> output and log sums.
pub(super) struct Join;

impl Kernel for Join {
    type Params = Params;
    const NAME: &'static str = "attention_join";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("attention_join", |p| grid(p.elements(), 64))];
    fn cost(p: &Params) -> Cost {
        let (elements, parts) = (p.elements() as u64, u64::from(p.parts));
        Cost { flops: 2 * elements * parts, bytes: 4 * elements * (parts + 1) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (outputs, part_log_sums, output, log_sums) = (io.real(0), io.real(1), io.real_mut(2), io.real_mut(3));
        let [rows, parts, dim] = [p.rows, p.parts, p.head_dim].map(|size| size as usize);
        let hidden = R::from_f64(HIDDEN);
        parallel::rows_of_two(
            (output, dim),
            (log_sums, 1),
            parts,
            #[inline(always)]
            |first, count, output, log_sums| {
                for (row, (output, log_sum)) in (first..first + count).zip(output.chunks_exact_mut(dim).zip(log_sums)) {
                    let of_part = |part: usize| (row / rows * parts + part) * rows + row % rows;
                    let most = (0..parts).fold(hidden, |most, part| most.max(part_log_sums[of_part(part)]));
                    output.fill(R::ZERO);
                    let mut total = R::ZERO;
                    for at in (0..parts).map(of_part).filter(|&at| part_log_sums[at] > hidden) {
                        let weight = (part_log_sums[at] - most).exp();
                        total += weight;
                        for (sum, &value) in output.iter_mut().zip(&outputs[at * dim..]) {
                            *sum += weight * value;
                        }
                    }
                    if total > R::ZERO {
                        output.iter_mut().for_each(|sum| *sum = *sum / total);
                    }
                    *log_sum = if total > R::ZERO { most + total.ln() } else { hidden };
                }
            },
        );
    }
}
