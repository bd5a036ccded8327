//! RMS norm of each head, then rotary position embedding: what some models do to queries and keys, in one kernel each way.

use bytemuck::{Pod, Zeroable};

use super::norm::{rms_norm, rms_weight_grad};
use super::rope::{Angles, rope, rotate, tables};
use super::team::{self, Rows};
use super::{Op, copy};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Indices, Io, Kernel, Shader};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

pub(crate) const OP: Op =
    Op { name: "rms_norm_rope", kernels: &[AnyKernel::of::<NormRope>(), AnyKernel::of::<NormRopeGrad>()], cases };

/// [`rope`] of [`rms_norm`] over the last axis of x [B, T, H, D], with weight [D], as Qwen3 does it to queries and keys (Qwen
/// Team 2025, arXiv:2505.09388). The tables and positions are those of [`rope`].
///
/// Derivatives: those of [`rms_norm`] for the gradient rotated by the negative angle.
#[track_caller]
pub fn rms_norm_rope(x: &Tensor, weight: &Tensor, eps: f32, cos: &Tensor, sin: &Tensor, positions: &Tensor) -> Tensor {
    let tables = tables("rms_norm_rope", x, cos, sin, positions);
    let dim = x.last_size();
    assert!(
        weight.dtype() == DType::F32 && *weight.shape() == [dim],
        "[rms_norm_rope] expected an f32 weight [{dim}], got {weight:?}"
    );
    let rows = x.elements() / dim.max(1);
    let table_rows = tables[0].size(0) as u32;
    let params = Params { rows: rows as u32, heads: x.size(2) as u32, half: dim as u32 / 2, table_rows, eps };
    let (input, scale) = (x.detach().whole(), weight.detach().whole());
    let y = x.device().empty(x.shape(), DType::F32);
    let statistics = x.device().empty([rows, 2], DType::F32);
    let [cos, sin, positions] = &tables;
    dispatch::<NormRope>(params, &[&input, &scale, cos, sin, positions, &y, &statistics]);
    y.with_rule("rms_norm_rope", [x, weight], move |g, [for_x, for_weight]| {
        let dx = for_x.then(|| {
            let [cos, sin, positions] = &tables;
            let dx = g.device().empty(g.shape(), DType::F32);
            dispatch::<NormRopeGrad>(params, &[&input, &scale, cos, sin, positions, &g.whole(), &statistics, &dx]);
            dx
        });
        let dw = for_weight.then(|| rms_weight_grad(&input, &rotate(g, &tables, -1.0), &statistics));
        [dx, dw]
    })
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    /// Heads of all tokens.
    rows: u32,
    heads: u32,
    half: u32,
    table_rows: u32,
    eps: f32,
}

impl Rows for Params {
    /// A row's steps are pairs.
    fn size(&self) -> [u32; 2] {
        [self.rows, self.half]
    }
}

/// What moving and computing an element takes, each so often.
fn cost(p: &Params, moves: u64, flops: u64) -> Cost {
    let (rows, half) = (u64::from(p.rows), u64::from(p.half));
    // Both tables' rows, and a position, are read once a token.
    let tokens = rows / u64::from(p.heads.max(1));
    Cost { flops: flops * 2 * rows * half, bytes: 4 * moves * 2 * rows * half + 8 * rows + tokens * (8 * half + 4) }
}

struct NormRope;

impl Kernel for NormRope {
    type Params = Params;
    const NAME: &'static str = "rms_norm_rope";
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &team::shaders("rms_norm_rope_scalars", "rms_norm_rope_vectors", "rms_norm_rope_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn indices(p: &Params) -> Option<Indices> {
        Some(Indices { binding: 4, below: p.table_rows, or_none: false })
    }
    fn cost(p: &Params) -> Cost {
        cost(p, 2, 7)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, weight, y, statistics) = (io.real(0), io.real(1), io.real_mut(5), io.real_mut(6));
        let (heads, half) = (p.heads as usize, p.half as usize);
        let angles = Angles { cos: io.real(2), sin: io.real(3), positions: io.u32(4), half, direction: R::ONE };
        let share = R::ONE / R::from_f64(f64::from(2 * p.half));
        parallel::rows_of_two(
            (y, 2 * half),
            (statistics, 2),
            2,
            #[inline(always)]
            |first, _, y, statistics| {
                for (row, (y, statistics)) in y.chunks_exact_mut(2 * half).zip(statistics.chunks_exact_mut(2)).enumerate() {
                    let x = &x[(first + row) * 2 * half..][..2 * half];
                    let rate = R::ONE / (parallel::lane_sum(x, |x| x * x) * share + R::from_f32(p.eps)).sqrt();
                    statistics.copy_from_slice(&[R::ZERO, rate]);
                    y.iter_mut().zip(x).zip(weight).for_each(|((y, &x), &w)| *y = x * rate * w);
                    angles.at((first + row) / heads).head(y);
                }
            },
        );
    }
}

struct NormRopeGrad;

impl Kernel for NormRopeGrad {
    type Params = Params;
    const NAME: &'static str = "rms_norm_rope_grad";
    const ACCESS: &'static [Access] =
        &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &team::shaders("rms_norm_rope_grad_scalars", "rms_norm_rope_grad_vectors", "rms_norm_rope_grad_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn indices(p: &Params) -> Option<Indices> {
        Some(Indices { binding: 4, below: p.table_rows, or_none: false })
    }
    fn cost(p: &Params) -> Cost {
        cost(p, 3, 10)
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, weight, g, statistics, dx) = (io.real(0), io.real(1), io.real(5), io.real(6), io.real_mut(7));
        let (heads, half) = (p.heads as usize, p.half as usize);
        let angles = Angles { cos: io.real(2), sin: io.real(3), positions: io.u32(4), half, direction: -R::ONE };
        let share = R::ONE / R::from_f64(f64::from(2 * p.half));
        parallel::rows(
            dx,
            2 * half,
            2,
            #[inline(always)]
            |first, _, chunk| {
                for (row, dx) in chunk.chunks_exact_mut(2 * half).enumerate() {
                    let at = (first + row) * 2 * half;
                    let (x, rate) = (&x[at..][..2 * half], statistics[2 * (first + row) + 1]);
                    dx.copy_from_slice(&g[at..][..2 * half]);
                    angles.at((first + row) / heads).head(dx);
                    dx.iter_mut().zip(weight).for_each(|(dx, &w)| *dx *= w);
                    let slope = parallel::lane_dot(dx, x, |gw, x| gw * x * rate) * share;
                    dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = rate * (*dx - x * rate * slope));
                }
            },
        );
    }
}

fn cases() -> Vec<Case> {
    let fused = |x: &[Tensor], eps| vec![rms_norm_rope(&x[0], &x[1], eps, &x[2], &x[3], &x[4])];
    let inputs = |[batch, length, heads, dim]: [usize; 4]| {
        let [cos, sin] = [(); 2].map(|()| Input::fixed([19, dim / 2]));
        [Input::any([batch, length, heads, dim]), Input::any([dim]), cos, sin, Input::indices([batch, length], 19)]
    };
    let mut cases = Vec::new();
    for shape in
        [[1, 1, 1, 2], [2, 5, 3, 8], [1, 63, 1, 64], [2, 65, 2, 130], [1, 257, 2, 16], [1, 3, 2, 512], [0, 4, 2, 8], [2, 3, 1, 0]]
    {
        // Normalising few numbers would cancel the digits of their gradient, but for a large eps.
        let eps = if shape[3] < 16 { 0.1 } else { 1e-5 };
        let case =
            Case::new(format!("rms_norm_rope {shape:?}"), inputs(shape), move |x| fused(x, eps)).terms(shape[3].max(shape[1]));
        cases.push(match shape.contains(&0) {
            true => case,
            false => case.composed(move |x| vec![rope(&rms_norm(&x[0], &x[1], eps), &x[2], &x[3], &x[4])]),
        });
    }
    cases.push(Case::new("rms_norm_rope of permuted heads", inputs([2, 5, 3, 8]), move |x| {
        let turned = copy(&x[0].permute(&[0, 2, 1, 3])).permute(&[0, 2, 1, 3]);
        vec![rms_norm_rope(&turned, &x[1], 0.1, &x[2], &x[3], &x[4])]
    }));
    cases
}
