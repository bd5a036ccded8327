//! Rotary position embedding.

use bytemuck::{Pod, Zeroable};

use super::view::View;
use super::{Op, add, cat, gather, mul, neg};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Indices, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "rope", kernels: &[AnyKernel::of::<Rope>()], cases };

/// Rotates x [B, T, H, D] by its positions (Su et al. 2021, arXiv:2104.09864), pairing element i of a head with element
/// i + D/2, as Hugging Face's Llama does:
///
/// y_i = x_i cos_i - x_(i + D/2) sin_i and y_(i + D/2) = x_(i + D/2) cos_i + x_i sin_i,
///
/// where cos and sin are rows of the tables [P, D/2] at `positions` [B, T] (u32, each below P). So packed rows and a cache's
/// offset are a matter of positions. x may be a view. The tables take no gradient.
///
/// Derivative: the gradient rotated by the negative angle.
#[track_caller]
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, positions: &Tensor) -> Tensor {
    let tables = tables("rope", x, cos, sin, positions);
    rotate(x, &tables, 1.0).with_rule("rope", [x], move |g, _| [Some(rotate(g, &tables, -1.0))])
}

/// The tables and the positions as kernels read them, once they are found to fit x.
#[track_caller]
pub(super) fn tables(name: &str, x: &Tensor, cos: &Tensor, sin: &Tensor, positions: &Tensor) -> [Tensor; 3] {
    let shape = x.shape();
    assert!(
        x.dtype() == DType::F32 && shape.len() == 4 && shape[3].is_multiple_of(2),
        "[{name}] expected f32 [B, T, H, D] with an even D, got {x:?}"
    );
    assert!(
        cos.rank() == 2 && cos.size(1) == shape[3] / 2 && cos.size(0) > 0 && cos.shape() == sin.shape(),
        "[{name}] expected tables [P, {}], got {cos:?} and {sin:?}",
        shape[3] / 2
    );
    assert!(!cos.requires_grad() && !sin.requires_grad(), "[{name}] expected tables that take no gradient");
    assert!(
        positions.dtype() == DType::U32 && *positions.shape() == shape[..2],
        "[{name}] expected u32 positions {:?}, got {positions:?}",
        &shape[..2]
    );
    [cos.whole(), sin.whole(), positions.whole()]
}

/// x with each pair turned by its angle, times `direction`.
pub(super) fn rotate(x: &Tensor, [cos, sin, positions]: &[Tensor; 3], direction: f32) -> Tensor {
    let params = Params {
        view: View::new(x.layout()),
        pairs: x.elements() as u32 / 2,
        heads: x.size(2) as u32,
        half: x.size(3) as u32 / 2,
        table_rows: cos.size(0) as u32,
        direction,
        unused: [0; 3],
    };
    let y = x.device().empty(x.shape(), DType::F32);
    dispatch::<Rope>(params, &[x, cos, sin, positions, &y]);
    y
}

/// The same by primitives.
fn composed(x: &Tensor, cos: &Tensor, sin: &Tensor, positions: &Tensor) -> Tensor {
    let half = x.size(3) / 2;
    let [cos, sin] = [cos, sin].map(|table| gather(table, positions).reshape([x.size(0), x.size(1), 1, half]));
    let [low, high] = [x.slice(3, 0..half), x.slice(3, half..2 * half)];
    let first = add(&mul(&low, &cos), &neg(&mul(&high, &sin)));
    let second = add(&mul(&high, &cos), &mul(&low, &sin));
    cat(&[&first, &second], 3)
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    view: View,
    pairs: u32,
    heads: u32,
    half: u32,
    table_rows: u32,
    direction: f32,
    unused: [u32; 3],
}

impl Params {
    /// Whether four pairs are two vectors of x.
    fn is_in_vectors(&self) -> bool {
        self.half.is_multiple_of(4) && self.view.is_in_vectors()
    }
}

struct Rope;

impl Kernel for Rope {
    type Params = Params;
    const NAME: &'static str = "rope";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        Shader::new("rope_scalars", |p| grid(p.pairs as usize, 64)),
        Shader::new("rope_vectors", |p: &Params| grid(p.pairs as usize, 256)).allowed(|p, _| p.is_in_vectors()),
    ];
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        [p.pairs, p.heads, p.half, p.is_in_vectors().into()]
    }
    fn indices(p: &Params) -> Option<Indices> {
        Some(Indices { binding: 3, below: p.table_rows, or_none: false })
    }
    fn cost(p: &Params) -> Cost {
        // Both tables' rows, and a position, are read once a token.
        let (pairs, tokens) = (u64::from(p.pairs), u64::from(p.pairs) / u64::from((p.heads * p.half).max(1)));
        Cost { flops: 6 * pairs, bytes: 16 * pairs + tokens * (8 * u64::from(p.half) + 4) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, cos, sin, positions, y) = (io.real(0), io.real(1), io.real(2), io.u32(3), io.real_mut(4));
        let (heads, half, step) = (p.heads as usize, p.half as usize, p.view.step());
        let angles = Angles { cos, sin, positions, half, direction: R::from_f32(p.direction) };
        parallel::rows(
            y,
            heads * 2 * half,
            1,
            #[inline(always)]
            |first, _, chunk| {
                for (token, y) in chunk.chunks_exact_mut(heads * 2 * half).enumerate() {
                    let turn = angles.at(first + token);
                    for (head, y) in y.chunks_exact_mut(2 * half).enumerate() {
                        let x = &x[p.view.row_start((first + token) * heads + head)..];
                        match step {
                            1 => y.copy_from_slice(&x[..2 * half]),
                            _ => y.iter_mut().enumerate().for_each(|(i, y)| *y = x[i * step]),
                        }
                        turn.head(y);
                    }
                }
            },
        );
    }
}

/// What the heads of all tokens are turned by on the CPU.
pub(super) struct Angles<'a, R> {
    pub cos: &'a [R],
    pub sin: &'a [R],
    pub positions: &'a [u32],
    pub half: usize,
    pub direction: R,
}

impl<'a, R: Real> Angles<'a, R> {
    /// What the heads of this token are turned by.
    #[inline(always)]
    pub fn at(&self, token: usize) -> Turn<'a, R> {
        let position = self.positions[token] as usize;
        let [cos, sin] = [self.cos, self.sin].map(|table| &table[position * self.half..][..self.half]);
        Turn { cos, sin, direction: self.direction }
    }
}

/// What the heads of one token are turned by: a cosine and a sine for each pair.
pub(super) struct Turn<'a, R> {
    cos: &'a [R],
    sin: &'a [R],
    direction: R,
}

impl<R: Real> Turn<'_, R> {
    /// Turns a head in place.
    #[inline(always)]
    pub fn head(&self, head: &mut [R]) {
        let (low, high) = head.split_at_mut(self.cos.len());
        for ((low, high), (&cos, &sin)) in low.iter_mut().zip(high).zip(self.cos.iter().zip(self.sin)) {
            let (a, b, sin) = (*low, *high, self.direction * sin);
            *low = a * cos - b * sin;
            *high = b * cos + a * sin;
        }
    }
}

fn cases() -> Vec<Case> {
    let inputs = |[batch, length, heads, dim]: [usize; 4]| {
        let table = Input::fixed([19, dim / 2]);
        let sines = Input::fixed([19, dim / 2]);
        [Input::any([batch, length, heads, dim]), table, sines, Input::indices([batch, length], 19)]
    };
    let mut cases = Vec::new();
    for shape in [[1, 1, 1, 2], [2, 5, 3, 8], [1, 63, 1, 64], [2, 65, 2, 130], [1, 257, 2, 16], [0, 4, 2, 8], [2, 3, 1, 0]] {
        let case = Case::new(format!("rope {shape:?}"), inputs(shape), |x| vec![rope(&x[0], &x[1], &x[2], &x[3])]);
        let empty = shape.contains(&0);
        cases.push(if empty { case } else { case.composed(|x| vec![composed(&x[0], &x[1], &x[2], &x[3])]) });
    }
    let heads_first = [Input::any([2, 3, 5, 8]), Input::fixed([9, 4]), Input::fixed([9, 4]), Input::indices([2, 5], 9)];
    cases.push(Case::new("rope of permuted heads", heads_first, |x| {
        vec![rope(&x[0].permute(&[0, 2, 1, 3]), &x[1], &x[2], &x[3])]
    }));
    let part = [Input::any([2, 4, 18]), Input::fixed([9, 2]), Input::fixed([9, 2]), Input::indices([2, 4], 9)];
    cases.push(Case::new("rope of a part of a joint projection", part, |x| {
        vec![rope(&x[0].slice(2, 3..15).reshape([2, 4, 3, 4]), &x[1], &x[2], &x[3])]
    }));
    cases.push(Case::new("rope of a transposed head", inputs([1, 5, 4, 8]), |x| {
        vec![rope(&x[0].reshape([1, 5, 8, 4]).permute(&[0, 1, 3, 2]), &x[1], &x[2], &x[3])]
    }));
    // Every 264 tokens the same, so that the inputs are soon drawn.
    let large = [Input::any([1, 264, 2, 64]), Input::fixed([9, 32]), Input::fixed([9, 32]), Input::indices([250, 264], 9)];
    let expanded = |x: &[Tensor]| vec![rope(&x[0].expand([250, 264, 2, 64]), &x[1], &x[2], &x[3])];
    cases.push(Case::new("rope past 65,535 workgroups", large, expanded).large());
    cases
}
