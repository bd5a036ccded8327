//! Long products of few rows and columns: their sums are cut into parts, so that all of a GPU has work, and added up in order.

use bytemuck::{Pod, Zeroable};

use super::arguments;
use super::epilogue::{Ending, Epilogue};
use super::params::{Params as Product, Side};
use super::product::Matmul;
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, Cost, Epilogue as Finishing, Halves, Io, Kernel, Lowering, Shader, Traits, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};

/// Workgroups that occupy the larger GPUs: two for each of the 132 multiprocessors of an H100.
const OCCUPYING: u32 = 264;

/// Operations of a product so short that smaller tiles, which occupy a GPU as they are, cost less than a dispatch that adds parts up: some
/// tens of microseconds' work of a middling GPU.
const SHORT: u64 = 1 << 29;
/// Rows or columns of a product by a LoRA's factor, whose sums are cut only where they are longer than [`LONG`]: of so few results any
/// number of workgroups is small.
const NARROW: u32 = 16;
/// Terms of a sum that one workgroup adds up in less time than a dispatch takes.
const LONG: u32 = 2048;

impl Product {
    /// Rows and columns of the tiles by which it is best computed on a GPU: the largest that occupy the device, perhaps with sums cut
    /// into parts where it is not short, or the smallest.
    pub fn tile(&self, traits: &Traits) -> [u32; 2] {
        let tiles: &[[u32; 2]] = match traits.halves.filter(|_| self.suits_halves()) {
            Some(Halves::Matrices16) => &[[128, 128], [64, 128], [64, 64], [32, 32]],
            Some(Halves::Matrices8) => &[[64, 64]],
            Some(Halves::Emulated) => &[[32, 128]],
            None if self.is_in_vectors() => &[[128, 128], [64, 64], [32, 32], [32, 16]],
            None => &[[64, 64]],
        };
        let operations = 2 * [self.m, self.n, self.k].map(u64::from).iter().product::<u64>();
        let parts = |tile: [u32; 2]| if operations <= SHORT { 1 } else { self.parts_of(tile) };
        let occupies = |tile: &&[u32; 2]| self.workgroups(**tile) * parts(**tile) >= OCCUPYING;
        *tiles.iter().find(occupies).unwrap_or(&tiles[tiles.len() - 1])
    }

    /// Into how many parts the sums of a product are best cut: 1 where its tiles occupy the device, or it is of many matrices.
    pub fn parts(&self, traits: &Traits) -> u32 {
        if traits.software { 1 } else { self.parts_of(self.tile(traits)) }
    }

    fn workgroups(&self, [rows, columns]: [u32; 2]) -> u32 {
        self.tiles(rows, columns).iter().product()
    }

    /// Into how many parts sums are cut for tiles of this size to occupy the device, or as many as there can be. A part is as long as a
    /// tile is high and wide together, so that writing its sums takes a quarter of what reading its operands does at most.
    fn parts_of(&self, tile: [u32; 2]) -> u32 {
        let is_of_a_factor = self.m.min(self.n) <= NARROW && self.k <= LONG;
        if self.m <= 1 || self.n == 0 || self.outer * self.inner != 1 || is_of_a_factor {
            return 1;
        }
        let (wanted, most) = (OCCUPYING.div_ceil(self.workgroups(tile)), self.k / (tile[0] + tile[1]));
        // Parts of whole vectors, so that every shader may have them.
        let is_possible = |parts: &u32| self.k.is_multiple_of(8 * parts);
        match wanted {
            1 => 1,
            _ => (wanted..=most).find(is_possible).or_else(|| (1..=most).rev().find(is_possible)).unwrap_or(1),
        }
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
    let [a, b, bias, residual, y, scales @ ..] = buffers else { unreachable!("a product has five buffers and scales") };
    let sums = into.buffer(DType::F32, (parts * p.m * p.n) as usize);
    into.dispatch::<Matmul>(p.in_parts(parts), &[&[*a, *b, *a, *a, sums], scales].concat());
    into.dispatch::<SumParts>(Params::new(p, parts), &[sums, sums, *bias, *residual, *y]);
}

/// y [outer, together] as the sum of so many parts, which lie [outer, parts, together].
pub(in crate::ops) fn sum_lowered(parts: u32, together: u32, sums: BufferRef, y: BufferRef, into: &mut Lowering) {
    into.dispatch::<SumParts>(Params::of_sums(y.elements, parts, together), &[sums, sums, sums, sums, y]);
}

/// The same on any device: what the laws run.
pub(in crate::ops) fn sum_parts(parts: u32, together: u32, sums: &Tensor, y: &Tensor) {
    dispatch::<SumParts>(Params::of_sums(y.elements(), parts, together), &[sums, sums, sums, sums, y]);
}

/// The product of two matrices in so many parts on any device: what the laws run.
pub(super) fn multiply_in_parts(a: &Tensor, b: &Tensor, epilogue: &Epilogue, parts: u32) -> Tensor {
    let (p, a, b) = arguments(a, b, epilogue);
    let [sums, y] = [[parts * p.m, p.n], [p.m, p.n]].map(|shape| a.device().empty(shape.map(|size| size as usize), DType::F32));
    dispatch::<Matmul>(p.in_parts(parts), &[&a, &b, &a, &a, &sums, &a, &a]);
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
    /// Elements of a part that lie together.
    together: u32,
    pub ending: Ending,
}

impl Params {
    fn new(p: &Product, parts: u32) -> Params {
        Params { elements: p.m * p.n, columns: p.n, parts, together: p.m * p.n, ending: p.ending }
    }

    fn of_sums(elements: usize, parts: u32, together: u32) -> Params {
        Params { elements: elements as u32, columns: together, parts, together, ending: Ending::new(&Epilogue::default()) }
    }
}

/// Sums [outer, parts, together], nothing in b's place, bias, residual -> y [outer, together], which is [M, N].
pub(super) struct SumParts;

impl Kernel for SumParts {
    type Params = Params;
    const NAME: &'static str = "matmul_parts";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("matmul_parts", |p: &Params| grid(p.elements as usize, 256)).with(|p| p.ending.constants(false))];
    const EPILOGUE: Option<&'static Finishing<Params>> = Some(&Finishing {
        result: 4,
        residual: 3,
        shared: |p| [p.elements, 0, 0, 0],
        add: |p| p.ending.add(),
        drop: |p, drops| p.ending.drop(drops),
    });
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
                    let [parts, together] = [p.parts, p.together].map(|size| size as usize);
                    let start = (first + at) / together * together * parts + (first + at) % together;
                    let parts = (0..parts).map(|part| sums[start + part * together]);
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
    use crate::kernel::AnyKernel;

    /// A product of whole matrices, of which b is stored by columns.
    fn product([m, k, n]: [u32; 3]) -> Product {
        let side = |row: u32, column: u32| Side { outer: 0, inner: 0, row, column, offset: 0, dtype: 0, scaled: 0 };
        let (a, b, ending) = (side(k, 1), side(1, k), Ending::new(&Epilogue::default()));
        Product { m, n, k, outer: 1, inner: 1, a, b, ending, turned: 0 }
    }

    #[test]
    fn only_small_grids_of_long_sums_on_real_gpus_are_cut() {
        let parts = |size: [u32; 3], software: bool| product(size).parts(&Traits { software, ..Traits::default() });
        // Eight tiles of 32 x 16, whose parts are at least 48 long.
        assert_eq!(parts([64, 4096, 64], false), 64);
        assert_eq!(parts([4096, 4096, 4096], false), 1);
        assert_eq!(parts([64, 4096 + 8, 64], false), 57);
        assert_eq!(parts([64, 40, 64], false), 1);
        assert_eq!(parts([0, 4096, 64], false), 1);
        assert_eq!(parts([64, 4096, 64], true), 1);
    }

    #[test]
    fn a_product_by_a_factor_is_left_whole_and_has_tiles_for_that() {
        let (factor, traits) = (product([16, 2048, 14_336]), Traits::default());
        assert_eq!((factor.parts(&traits), factor.tile(&traits)), (1, [32, 32]));
        assert!(product([16, 16_384, 576]).parts(&traits) > 1);
    }

    #[test]
    fn the_products_of_a_step_occupy_the_larger_gpus() {
        // Tokens; hidden, key and value, inner sizes and vocabulary, of SmolLM2-135M and Llama-3.2-1B.
        let models = [[576, 192, 1536, 49_152], [2048, 512, 8192, 128_256]];
        for (tokens, [hidden, keys, inside, vocabulary], halves) in [256, 1024]
            .into_iter()
            .flat_map(|tokens| models.map(|model| (tokens, model)))
            .flat_map(|(tokens, model)| [None, Some(Halves::Matrices16)].map(|halves| (tokens, model, halves)))
        {
            let traits = Traits { halves, ..Traits::default() };
            let layers = [[hidden, hidden], [hidden, keys], [hidden, inside], [inside, hidden], [hidden, vocabulary]];
            for [inputs, outputs] in layers {
                // Forward, the gradient of the input, and that of the weight.
                for size in [[tokens, inputs, outputs], [tokens, outputs, inputs], [outputs, tokens, inputs]] {
                    let whole = product(size);
                    let parts = whole.in_parts(whole.parts(&traits));
                    let shader = (AnyKernel::of::<Matmul>().choose)(bytemuck::bytes_of(&parts), &traits);
                    let workgroups = (AnyKernel::of::<Matmul>().workgroups)(bytemuck::bytes_of(&parts), shader);
                    assert!(workgroups.iter().product::<u32>() >= OCCUPYING, "{size:?}, {halves:?}: {workgroups:?}");
                }
            }
        }
    }
}
