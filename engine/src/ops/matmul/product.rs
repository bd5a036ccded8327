//! The kernel of a product, in two forms: one writes its result, and one adds it to what is there.

use rayon::prelude::*;

use super::params::Params;
use crate::kernel::{Access, Constants, Cost, Io, Kernel, Shader, Traits};
use crate::real::{Real, Threads};

/// a, b, bias, residual -> y. With `UPDATE`, y += scale * a b, and there is neither bias nor residual.
pub(super) struct Product<const UPDATE: bool>;

pub(super) type Matmul = Product<false>;
pub(super) type MatmulAccumulate = Product<true>;

impl<const UPDATE: bool> Kernel for Product<UPDATE> {
    type Params = Params;
    const NAME: &'static str = if UPDATE { "matmul_accumulate" } else { "matmul" };
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::Read, Access::Read, if UPDATE { Access::Update } else { Access::Write }];
    const SHADERS: &'static [Shader<Params>] = &[
        Shader { source: "matmul_blocked", constants: constants::<UPDATE>, workgroups: |p| p.tiles(8, 256) },
        Shader { source: "matmul_tiled", constants: constants::<UPDATE>, workgroups: |p| p.tiles(64, 64) },
        Shader { source: "matmul_subgroup", constants: directions::<UPDATE>, workgroups: |p| p.tiles(32, 256) },
    ];
    fn choose(p: &Params, traits: &Traits) -> usize {
        match traits.software {
            true if Self::allows(p, 2, traits) => 2,
            true => 0,
            false => 1,
        }
    }
    fn allows(p: &Params, shader: usize, traits: &Traits) -> bool {
        let whole_subgroups = traits.subgroups.is_some_and(|(least, most)| least >= 4 && most <= 64);
        match shader {
            0 => true,
            1 => traits.loop_fits(p.k),
            _ => whole_subgroups && p.is_in_vectors(),
        }
    }
    fn cost(p: &Params) -> Cost {
        let [m, n, k, batches] = [p.m, p.n, p.k, p.outer * p.inner].map(u64::from);
        let written = (1 + u64::from(UPDATE)) * batches * m * n;
        let bytes = 4 * (batches * (m * k + k * n) + written + p.ending.reads(batches * m, n));
        Cost { flops: 2 * batches * m * n * k, bytes }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (a, b, bias, residual, y) = (io.real(0), io.real(1), io.real(2), io.real(3), io.real_mut(4));
        let [m, n, k] = [p.m, p.n, p.k].map(|size| size as usize);
        if y.is_empty() {
            return;
        }
        let begun = UPDATE || p.ending.begin(y, n, bias, residual);
        let scales = [if begun { R::ONE } else { R::ZERO }, R::from_f32(p.ending.scale)];
        let product = |batch: usize, y: &mut [R], threads: Threads| match k {
            0 if begun => {}
            0 => y.fill(R::ZERO),
            _ => {
                let (a, b) = (&a[p.a.start(p, batch)..], &b[p.b.start(p, batch)..]);
                R::gemm([m, n, k], scales, (y, [n, 1]), (a, p.a.strides()), (b, p.b.strides()), threads);
            }
        };
        // Many small products are shared out whole; a few large ones each use every core.
        if y.len() / (m * n) >= 2 * rayon::current_num_threads() {
            y.par_chunks_mut(m * n).enumerate().for_each(|(batch, y)| product(batch, y, Threads::One));
        } else {
            y.chunks_mut(m * n).enumerate().for_each(|(batch, y)| product(batch, y, Threads::All));
        }
        p.ending.end(y, residual);
    }
}

fn constants<const UPDATE: bool>(p: &Params) -> Constants {
    p.ending.constants(UPDATE)
}

/// With the axes of the operands' vectors.
fn directions<const UPDATE: bool>(p: &Params) -> Constants {
    let directions = [("A_ALONG_K", f64::from(p.a.column == 1)), ("B_ALONG_N", f64::from(p.b.column == 1))];
    constants::<UPDATE>(p).into_iter().chain(directions).collect()
}
