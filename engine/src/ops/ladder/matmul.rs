//! The matmul ladder.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::dtype::DType;
use crate::kernel::{Access, Cost, Io, Kernel, Shader, Traits};
use crate::ops;
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

/// The longest sum, so that a loop over it fits on every adapter ([`Traits::loop_fits`]).
const MOST_TERMS: usize = 65_535 / 4;

/// a b for row-major a [M, K] and b [K, N], no size 0 and K at most 16,383: [`matmul`](crate::ops::matmul) for those who read the
/// ladder. No gradient flows.
#[track_caller]
pub fn ladder_matmul(a: &Tensor, b: &Tensor) -> Tensor {
    let fits = a.rank() == 2 && b.rank() == 2 && a.size(1) == b.size(0) && (1..=MOST_TERMS).contains(&a.size(1));
    let fits = fits && a.elements() > 0 && b.elements() > 0;
    assert!(
        fits,
        "[ladder_matmul] expected [M, K] and [K, N] with K of 1 to {MOST_TERMS}, got {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    assert!(!a.requires_grad() && !b.requires_grad(), "[ladder_matmul] expected detached tensors, got ones that want a gradient");
    let y = a.device().empty([a.size(0), b.size(1)], DType::F32);
    let params = Params { m: a.size(0) as u32, n: b.size(1) as u32, k: a.size(1) as u32 };
    dispatch::<LadderMatmul>(params, &[&a.whole(), &b.whole(), &y]);
    y
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    m: u32,
    n: u32,
    k: u32,
}

pub(super) struct LadderMatmul;

impl Kernel for LadderMatmul {
    type Params = Params;
    const NAME: &'static str = "ladder_matmul";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        rung("ladder/matmul_1", |p| [p.m.div_ceil(16), p.n.div_ceil(16), 1]),
        rung("ladder/matmul_2", |p| tiles(p, 16, 16)).preferred(|_, _| true),
        rung("ladder/matmul_3", |p| tiles(p, 16, 16)),
        rung("ladder/matmul_4", |p| tiles(p, 64, 64)),
        rung("ladder/matmul_5", |p| tiles(p, 64, 64)).allowed(in_vectors),
        rung("ladder/matmul_6", |p| tiles(p, 128, 128)).allowed(in_vectors),
        rung("ladder/matmul_7", |p| tiles(p, 128, 128)).allowed(in_vectors),
        rung("ladder/matmul_8", |p| tiles(p, 16, 256)).allowed(in_vectors),
        rung("ladder/matmul_9", |p| tiles(p, 32, 256)).allowed(in_subgroups::<4>),
        rung("ladder/matmul_10", |p| [p.m.div_ceil(32), p.n.div_ceil(64), 1]).allowed(in_subgroups::<4>),
        rung("ladder/matmul_11", |p| [p.m.div_ceil(32), p.n.div_ceil(64), 1]).allowed(in_subgroups::<8>),
    ];
    /// Each rung is read and timed as it stands.
    fn grouped_by(_: &Params) -> Option<u32> {
        None
    }
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        [p.m, p.n, p.k]
    }
    fn cost(p: &Params) -> Cost {
        let [m, n, k] = [p.m, p.n, p.k].map(u64::from);
        Cost { flops: 2 * m * n * k, bytes: 4 * (m * k + k * n + m * n) }
    }
    /// The definition: the twin of every rung.
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (a, b, y) = (io.real(0), io.real(1), io.real_mut(2));
        let [n, k] = [p.n, p.k].map(|size| size as usize);
        y.par_chunks_mut(n).enumerate().for_each(|(row, y)| {
            for (column, y) in y.iter_mut().enumerate() {
                *y = (0..k).fold(R::ZERO, |sum, at| sum + a[row * k + at] * b[at * n + column]);
            }
        });
    }
}

/// A rung: it runs where it is forced.
const fn rung(source: &'static str, workgroups: fn(&Params) -> [u32; 3]) -> Shader<Params> {
    Shader::new(source, workgroups).preferred(|_, _| false)
}

fn in_vectors(p: &Params, _: &Traits) -> bool {
    p.k.is_multiple_of(4) && p.n.is_multiple_of(4)
}

/// By subgroups of at least so many invocations.
fn in_subgroups<const LEAST: u32>(p: &Params, traits: &Traits) -> bool {
    in_vectors(p, traits) && traits.subgroups.is_some_and(|(least, most)| least >= LEAST && most <= 64)
}

fn tiles(p: &Params, rows: u32, columns: u32) -> [u32; 3] {
    [p.n.div_ceil(columns), p.m.div_ceil(rows), 1]
}

pub(super) fn cases() -> Vec<Case> {
    // Within and past every tile, in whole vectors of four and not.
    let sizes = [[1, 1, 1], [65, 63, 66], [130, 257, 255], [16, 16, 16], [100, 36, 260], [129, 68, 132], [260, 128, 36]];
    sizes.map(case).into()
}

fn case([m, k, n]: [usize; 3]) -> Case {
    let run = |x: &[Tensor]| vec![ladder_matmul(&x[0].detach(), &x[1].detach())];
    let in_use = |x: &[Tensor]| vec![ops::matmul(&x[0].detach(), &x[1].detach())];
    Case::new(format!("ladder matmul {m}x{k}x{n}"), [Input::any([m, k]), Input::any([k, n])], run).terms(k).composed(in_use)
}
