//! What a device can do at most: kernels that do nothing but move memory, or nothing but multiply and add. Every other kernel's
//! speed is held against theirs (Williams et al. 2009, "Roofline", doi:10.1145/1498765.1498785).

use bytemuck::{Pod, Zeroable};

use super::Op;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Halves, Io, Kernel, Shader, Target, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op {
    name: "ceilings",
    kernels: &[AnyKernel::of::<Stream>(), AnyKernel::of::<MultiplyAdds>(), AnyKernel::of::<MatrixProducts>()],
    cases,
};

/// A copy of an f32 tensor that fills its buffer in whole vectors of four, read and written in order: memory at its fastest.
/// No gradient flows.
#[track_caller]
pub fn stream(x: &Tensor) -> Tensor {
    let fits = x.dtype() == DType::F32 && x.is_whole() && x.elements().is_multiple_of(4);
    assert!(fits, "[stream] expected a whole f32 tensor of a multiple of 4 elements, got {x:?}");
    let y = x.device().empty(x.shape(), DType::F32);
    dispatch::<Stream>(StreamParams { vectors: x.elements() as u32 / 4, unused: [0; 3] }, &[x, &y]);
    y
}

/// For each element of x [..], the sum of eight chains v = 1 - v that start at x, x + 1/8, x + 2/8, ... and go on for 8 `rounds`
/// steps, none waiting for another, and none coming to rest: arithmetic at its fastest, on numbers that change. No gradient flows.
#[track_caller]
pub fn multiply_adds(x: &Tensor, rounds: u32) -> Tensor {
    assert!(x.dtype() == DType::F32 && x.is_whole(), "[multiply_adds] expected a whole f32 tensor, got {x:?}");
    let y = x.device().empty(x.shape(), DType::F32);
    let params = MultiplyAddsParams { elements: x.elements() as u32, rounds, factor: -1.0, term: 1.0 };
    dispatch::<MultiplyAdds>(params, &[x, &y]);
    y
}

/// `rounds` (a b_1 + ... + a b_8), each sum `rounds` products long and none waiting for another, for a and b_1 to b_8 of x [9, S, S];
/// the same in each of y [matrices, S, S]. S is 8 or 16, `matrices` a multiple of 4. On matrix units for S x S, where products may
/// take f16 (which must hold x), this is those units at their fastest. No gradient flows.
#[track_caller]
pub fn matrix_products(x: &Tensor, matrices: usize, rounds: u32) -> Tensor {
    let side = x.last_size();
    let fits = x.dtype() == DType::F32 && x.is_whole() && *x.shape() == [9, side, side] && (side == 8 || side == 16);
    assert!(fits, "[matrix_products] expected a whole f32 tensor [9, S, S] with S of 8 or 16, got {x:?}");
    assert!(matrices.is_multiple_of(4), "[matrix_products] expected a multiple of 4 matrices, got {matrices}");
    let y = x.device().empty([matrices, side, side], DType::F32);
    let params = MatrixProductsParams { matrices: matrices as u32, rounds, side: side as u32, unused: 0 };
    dispatch::<MatrixProducts>(params, &[x, &y]);
    y
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct StreamParams {
    vectors: u32,
    unused: [u32; 3],
}

struct Stream;

impl Kernel for Stream {
    type Params = StreamParams;
    const NAME: &'static str = "stream";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<StreamParams>] = &[Shader::new("stream", |p| grid(p.vectors as usize, 1024))];
    fn cost(p: &StreamParams) -> Cost {
        Cost { flops: 0, bytes: 2 * 16 * u64::from(p.vectors) }
    }
    fn run<R: Real>(_: &StreamParams, io: &mut Io<R>) {
        let x = io.real(0);
        parallel::elements(
            io.real_mut(1),
            #[inline(always)]
            |first, y| y.copy_from_slice(&x[first..first + y.len()]),
        );
    }
}

/// The numbers of a step are parameters, so that no compiler knows them.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct MultiplyAddsParams {
    elements: u32,
    rounds: u32,
    factor: f32,
    term: f32,
}

/// Chains of an element, and steps of a round.
const CHAINS: usize = 8;
const STEPS: usize = 8;

struct MultiplyAdds;

impl Kernel for MultiplyAdds {
    type Params = MultiplyAddsParams;
    const NAME: &'static str = "multiply_adds";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<MultiplyAddsParams>] = &[Shader::new("multiply_adds", |p| grid(p.elements as usize, 256))];
    fn cost(p: &MultiplyAddsParams) -> Cost {
        let elements = u64::from(p.elements);
        Cost { flops: 2 * (CHAINS * STEPS) as u64 * u64::from(p.rounds) * elements, bytes: 8 * elements }
    }
    fn run<R: Real>(p: &MultiplyAddsParams, io: &mut Io<R>) {
        let (x, y) = (io.real(0), io.real_mut(1));
        parallel::rows(
            y,
            1,
            STEPS * p.rounds as usize,
            #[inline(always)]
            |first, _, y| {
                for (block, y) in y.chunks_mut(ELEMENTS).enumerate() {
                    let x = &x[first + block * ELEMENTS..][..y.len()];
                    let mut chains = [[R::ZERO; LANES]; ELEMENTS * CHAINS / LANES];
                    for (at, chain) in chains.as_flattened_mut().iter_mut().enumerate() {
                        let start = x.get(at / CHAINS).copied().unwrap_or(R::ZERO);
                        *chain = start + R::from_f64(0.125 * (at % CHAINS) as f64);
                    }
                    pulp::Arch::new().dispatch(Advance { chains: &mut chains, params: p });
                    for (y, chains) in y.iter_mut().zip(chains.as_flattened().chunks(CHAINS)) {
                        *y = chains.iter().fold(R::ZERO, |sum, &chain| sum + chain);
                    }
                }
            },
        );
    }
}

/// Elements that go together: their chains are four vectors of sixteen, or eight of eight, as many as are in flight at once.
const ELEMENTS: usize = 8;
const LANES: usize = 16;

/// The steps of these chains. An op of its own, since a closure of this size would not be compiled for vector instructions.
struct Advance<'a, R, const N: usize> {
    chains: &'a mut [[R; LANES]; N],
    params: &'a MultiplyAddsParams,
}

impl<R: Real, const N: usize> pulp::WithSimd for Advance<'_, R, N> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (factor, term) = (R::from_f32(self.params.factor), R::from_f32(self.params.term));
        let mut chains = *self.chains;
        for _ in 0..self.params.rounds as usize * STEPS {
            for vector in &mut chains {
                for lane in vector {
                    *lane = lane.mul_add(factor, term);
                }
            }
        }
        *self.chains = chains;
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct MatrixProductsParams {
    matrices: u32,
    rounds: u32,
    side: u32,
    unused: u32,
}

impl MatrixProductsParams {
    /// Whether matrix units of this side compute it: a folded grid would end past the last matrix.
    fn is_of_units(&self, side: u32) -> bool {
        self.side == side && (1..=4 * 65_535).contains(&self.matrices)
    }
}

const fn units(source: &'static str, halves: Halves) -> Shader<MatrixProductsParams> {
    Shader::new(source, |p: &MatrixProductsParams| grid(p.matrices as usize, 4)).written_for(Target::Halves(halves))
}

struct MatrixProducts;

impl Kernel for MatrixProducts {
    type Params = MatrixProductsParams;
    const NAME: &'static str = "matrix_products";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<MatrixProductsParams>] = &[
        Shader::new("matrix_products_any", |p| grid((p.matrices * p.side * p.side) as usize, 256)),
        units("matrix_products_16", Halves::Matrices16).allowed(|p, _| p.is_of_units(16)),
        units("matrix_products_8", Halves::Matrices8).allowed(|p, _| p.is_of_units(8)),
    ];
    fn bucket(p: &MatrixProductsParams) -> impl IntoIterator<Item = u32> {
        [p.matrices, p.rounds, p.side]
    }
    fn cost(p: &MatrixProductsParams) -> Cost {
        let [matrices, rounds, side] = [p.matrices, p.rounds, p.side].map(u64::from);
        Cost { flops: 2 * 8 * matrices * rounds * side.pow(3), bytes: 4 * (9 + matrices) * side * side }
    }
    fn run<R: Real>(p: &MatrixProductsParams, io: &mut Io<R>) {
        let (x, y, side) = (io.real(0), io.real_mut(1), p.side as usize);
        let (a, b) = x.split_at(side * side);
        let element = |at: usize| {
            let (row, column) = (at / side, at % side);
            let terms = (0..8 * side).map(|k| a[row * side + k % side] * b[k * side + column]);
            R::from_f64(p.rounds.into()) * terms.fold(R::ZERO, |sum, term| sum + term)
        };
        let sums: Vec<R> = (0..side * side).map(element).collect();
        y.chunks_mut(side * side).for_each(|y| y.copy_from_slice(&sums));
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [0, 4, 252, 256, 260, 4096, 4100] {
        cases.push(Case::new(format!("stream {size}"), [Input::fixed([size])], |x| vec![stream(&x[0])]));
    }
    for (size, rounds) in [(0, 1), (1, 0), (1, 3), (7, 1), (255, 2), (257, 5), (70_000, 1)] {
        let name = format!("multiply_adds {size}, {rounds} rounds");
        cases.push(Case::new(name, [Input::fixed([size])], move |x| vec![multiply_adds(&x[0], rounds)]).terms(CHAINS));
    }
    for (side, matrices, rounds) in [(8, 4, 1), (8, 68, 3), (16, 0, 1), (16, 4, 0), (16, 36, 2)] {
        let name = format!("matrix_products {matrices} of {side} x {side}, {rounds} rounds");
        let run = move |x: &[Tensor]| vec![matrix_products(&x[0], matrices, rounds)];
        cases.push(Case::new(name, [Input::fixed([9, side, side])], run).terms(8 * side));
    }
    cases
}
