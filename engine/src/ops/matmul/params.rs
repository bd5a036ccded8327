//! What the kernels of a product are told.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::epilogue::Ending;
use super::storage;
use crate::Shape;
use crate::dtype::DType;
use crate::shape::Layout;
use crate::tensor::Tensor;

/// y [outer, inner, M, N] from a [outer, inner, M, K] and b [outer, inner, K, N].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    pub m: u32,
    pub n: u32,
    pub k: u32,
    pub outer: u32,
    pub inner: u32,
    pub a: Side,
    pub b: Side,
    pub ending: Ending,
    /// Whether the operands have changed places, b^T a^T: y and its epilogue are of the turned result.
    pub turned: u32,
}

impl Params {
    /// Whether both operands lie in whole vectors of [`Side::lanes`], each along one of its axes.
    pub fn is_in_vectors(&self) -> bool {
        let along = |side: &Side, stride: u32, next: u32, length: u32| {
            stride == 1 && [side.outer, side.inner, side.offset, next, length].iter().all(|number| number % side.lanes() == 0)
        };
        let (a, b) = (&self.a, &self.b);
        let a = along(a, a.column, a.row, self.k) || along(a, a.row, a.column, self.m);
        let b = along(b, b.column, b.row, self.n) || along(b, b.row, b.column, self.k);
        a && b && self.m > 0 && self.n > 0 && self.k > 0
    }

    /// Whether shaders whose neighbours vary along n would have few of them, and many along m.
    pub fn is_narrow(&self) -> bool {
        self.n <= 32 && self.n < self.m
    }

    /// The transposed product of transposed operands, which change places.
    pub fn turn(self) -> Params {
        let side = |side: Side| Side { row: side.column, column: side.row, ..side };
        Params { m: self.n, n: self.m, a: side(self.b), b: side(self.a), turned: 1 - self.turned, ..self }
    }

    /// Whether products of f16 operands are worth their tiles.
    pub fn suits_halves(&self) -> bool {
        self.is_in_vectors() && self.m >= 32 && self.n >= 32
    }

    /// Whether it is one of f16 operands.
    pub fn is_of_halves(&self) -> bool {
        [self.a, self.b].iter().all(|side| side.dtype == storage(DType::F16))
    }

    /// Workgroups of shaders that have a tile of so many rows and columns each.
    pub fn tiles(&self, rows: u32, columns: u32) -> [u32; 3] {
        // Every device takes 65,535 in a dimension; a workgroup goes on to further batches.
        [self.n.div_ceil(columns).max(1), self.m.div_ceil(rows).max(1), (self.outer * self.inner).clamp(1, 65_535)]
    }

    /// [`tiles`](Self::tiles), of which neighbours have the same columns: what they read of b stays in a CPU's cache.
    pub fn columns_of_tiles(&self, rows: u32, columns: u32) -> [u32; 3] {
        let [x, y, z] = self.tiles(rows, columns);
        [y, x, z]
    }
}

/// How one operand lies: strides and offset in elements; and how it is stored.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Side {
    pub outer: u32,
    pub inner: u32,
    pub row: u32,
    pub column: u32,
    pub offset: u32,
    /// As `storage.wgsl` numbers it.
    pub dtype: u32,
    /// Whether these are [`halves`](super::halves), whose factor the kernel is given, and which end at whole vectors.
    pub scaled: u32,
}

impl Side {
    /// An operand whose batch axes are made two, and how it lies then.
    pub fn of(x: &Tensor, batch: &[usize]) -> (Tensor, Side) {
        let matrix = [x.size(x.rank() - 2), x.last_size()];
        let shape = |batch: &[usize]| Shape::new(&[batch, &matrix].concat());
        let expanded = x.layout().expand(shape(batch));
        let merged = two(batch).map(|size| size as usize);
        match expanded.reshape(shape(&merged)) {
            Some(layout) => (x.clone(), Side::new(&layout, x.dtype())),
            None => {
                let x = x.expand(shape(batch)).whole();
                let layout = x.layout().reshape(shape(&merged)).expect("a whole tensor takes any shape");
                let side = Side::new(&layout, x.dtype());
                (x, side)
            }
        }
    }

    fn new(layout: &Layout, dtype: DType) -> Side {
        let strides = layout.strides();
        Side {
            outer: strides[0] as u32,
            inner: strides[1] as u32,
            row: strides[2] as u32,
            column: strides[3] as u32,
            offset: layout.offset as u32,
            dtype: storage(dtype),
            scaled: 0,
        }
    }

    /// Elements of a vector: shaders read 16 bytes, of which there is a half behind the last four where they are halves.
    fn lanes(&self) -> u32 {
        if self.dtype == 0 || self.scaled == 1 { 4 } else { 8 }
    }

    /// From the first to the last element of so many matrices, rows and columns.
    pub fn reached(&self, [outer, inner, rows, columns]: [u32; 4]) -> Range<usize> {
        let along = [(self.outer, outer), (self.inner, inner), (self.row, rows), (self.column, columns)];
        let last: usize = along.map(|(stride, size)| stride as usize * (size as usize).saturating_sub(1)).iter().sum();
        self.offset as usize..self.offset as usize + last + 1
    }

    /// Where the matrix of one batch starts.
    pub fn start(&self, p: &Params, batch: usize) -> usize {
        let (outer, inner) = (batch / p.inner as usize, batch % p.inner as usize);
        self.offset as usize + outer * self.outer as usize + inner * self.inner as usize
    }

    pub fn strides(&self) -> [usize; 2] {
        [self.row as usize, self.column as usize]
    }
}

/// The batch axes as two: the last one, and the others.
pub(super) fn two(batch: &[usize]) -> [u32; 2] {
    match batch.split_last() {
        Some((inner, outer)) => [outer.iter().product::<usize>() as u32, *inner as u32],
        None => [1, 1],
    }
}
