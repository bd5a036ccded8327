//! One row of tokens through a weight whose rows lie in memory one after the other.

use bytemuck::{Pod, Zeroable};

use super::bands;
use super::epilogue::Ending;
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Constants, Cost, Data, Epilogue, Io, Kernel, Lowering, Shader, grid};
use crate::real::Real;

/// y [N] = W [N, K] x [K].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    pub n: u32,
    pub k: u32,
    pub offset: u32,
    pub dtype: u32,
    pub ending: Ending,
}

impl Params {
    /// Whether the weight's rows are whole vectors of 16 bytes.
    fn is_in_vectors(&self) -> bool {
        let lanes = if self.dtype == 0 { 4 } else { 8 };
        self.k.is_multiple_of(lanes) && self.offset.is_multiple_of(lanes) && self.n > 0
    }
}

/// x, W, bias, residual -> y.
pub(super) struct Matvec;

impl Kernel for Matvec {
    type Params = Params;
    const NAME: &'static str = "matvec";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        Shader::new("matvec_row", |p: &Params| grid(p.n as usize, 64)).with(constants),
        Shader::new("matvec_workgroup", |p: &Params| grid(p.n as usize, 1))
            .with(constants)
            .preferred(|_, traits| !traits.software),
        Shader::new("matvec_subgroups", |p: &Params| grid(p.n as usize, 4))
            .with(constants)
            .allowed(|p, traits| p.is_in_vectors() && traits.subgroups.is_some_and(|(_, most)| most <= 64))
            .preferred(|_, traits| !traits.software),
    ];
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        [p.n, p.k, p.dtype]
    }
    const EPILOGUE: Option<&'static Epilogue<Params>> = Some(&Epilogue {
        result: 4,
        residual: 3,
        shared: |p| [p.n, 0, 0, 0],
        add: |p| p.ending.add(),
        drop: |p, drops| p.ending.drop(drops),
    });
    /// What is too large is read in bands.
    fn lower(p: &Params, buffers: &[BufferRef], into: &mut Lowering) {
        bands::row_lowered(p, buffers, into);
    }
    fn cost(p: &Params) -> Cost {
        let (weights, width) = (u64::from(p.n) * u64::from(p.k), if p.dtype == 0 { 4 } else { 2 });
        Cost { flops: 2 * weights, bytes: width * weights + 4 * (u64::from(p.n + p.k) + p.ending.reads(1, p.n.into())) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, bias, residual, y, first) = (io.real(0), io.real(2), io.real(3), io.real_mut(4), p.offset as usize);
        if !p.ending.begin(y, p.n as usize, bias, residual) {
            y.fill(R::ZERO);
        }
        let scale = R::from_f32(p.ending.scale);
        match io.data(1) {
            Data::Real(w) => dot_rows(
                x,
                &w[first..],
                scale,
                y,
                #[inline(always)]
                |w| w,
            ),
            Data::F16(w) => dot_rows(
                x,
                &w[first..],
                scale,
                y,
                #[inline(always)]
                |w| R::from_f32(w.to_f32()),
            ),
            Data::BF16(w) => dot_rows(
                x,
                &w[first..],
                scale,
                y,
                #[inline(always)]
                |w| R::from_f32(w.to_f32()),
            ),
            Data::U32(_) => unreachable!("[matvec] expected a floating-point weight"),
        }
        p.ending.end(y, residual);
    }
}

/// Storage types as shaders number them (`storage.wgsl`).
pub(crate) fn storage(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::U32 => unreachable!("[storage] expected a floating-point type"),
    }
}

fn constants(p: &Params) -> Constants {
    p.ending.constants(false).into_iter().chain([("DTYPE", p.dtype.into())]).collect()
}

/// y += scale * W x.
fn dot_rows<R: Real, W: Copy + Sync>(x: &[R], weight: &[W], scale: R, y: &mut [R], widen: impl Fn(W) -> R + Sync) {
    parallel::rows(
        y,
        1,
        x.len(),
        #[inline(always)]
        |first, _, y| {
            for (row, y) in y.iter_mut().enumerate() {
                let weight = &weight[(first + row) * x.len()..][..x.len()];
                *y += scale
                    * parallel::lane_dot(
                        weight,
                        x,
                        #[inline(always)]
                        |w, x| widen(w) * x,
                    );
            }
        },
    );
}
