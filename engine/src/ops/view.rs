//! Views: tensors of the elements of others, laid out otherwise, and what kernels are told of them (`View` of `strided.wgsl`).

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::{copy, pad, sum_to};
use crate::shape::{Layout, MAX_RANK, Shape};
use crate::tensor::Tensor;

impl Tensor {
    /// This tensor, or a copy of it, filling its buffer in row-major order: what most kernels ask for.
    pub fn whole(&self) -> Tensor {
        if self.is_whole() { self.clone() } else { copy(self) }
    }

    /// The axes in another order: axis `i` of the result is axis `order[i]` of this. A view; its gradient is permuted back.
    #[track_caller]
    pub fn permute(&self, order: &[usize]) -> Tensor {
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(to, &from)| {
            if from < back.len() {
                back[from] = to
            }
        });
        self.viewed("permute", self.layout().permute(order), move |grad| grad.permute(&back))
    }

    /// The last two axes exchanged. A view.
    #[track_caller]
    pub fn transpose(&self) -> Tensor {
        assert!(self.rank() >= 2, "[transpose] expected a matrix, got {:?}", self.shape());
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.swap(self.rank() - 2, self.rank() - 1);
        self.permute(&order)
    }

    /// The same elements under another shape: a view where strides can say so, a copy where not.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let (from, shape) = (self.shape(), shape.into());
        match self.layout().reshape(shape) {
            Some(layout) => self.viewed("reshape", layout, move |grad| grad.reshape(from)),
            None => copy(self).reshape(shape),
        }
    }

    /// Part of one axis. A view; its gradient is zero elsewhere.
    #[track_caller]
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Tensor {
        let (from, start) = (self.shape(), range.start);
        self.viewed("slice", self.layout().slice(axis, range), move |grad| pad(grad, axis, start, from[axis]))
    }

    /// Stretched to `shape` by broadcasting. A view; its gradient is summed over the stretched axes.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        let from = self.shape();
        self.viewed("expand", self.layout().expand(shape.into()), move |grad| sum_to(grad, from))
    }
}

/// A layout of six axes, outermost first, as four groups of four words.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct View {
    sizes_outer: [u32; 4],
    strides_outer: [u32; 4],
    inner: [u32; 4],
    offset: [u32; 4],
}

impl View {
    pub fn new(layout: &Layout) -> Self {
        let (mut sizes, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        let unused = MAX_RANK - layout.shape.len();
        for axis in 0..layout.shape.len() {
            sizes[unused + axis] = layout.shape[axis] as u32;
            strides[unused + axis] = layout.strides()[axis] as u32;
        }
        View {
            sizes_outer: [sizes[0], sizes[1], sizes[2], sizes[3]],
            strides_outer: [strides[0], strides[1], strides[2], strides[3]],
            inner: [sizes[4], sizes[5], strides[4], strides[5]],
            offset: [layout.offset as u32, 0, 0, 0],
        }
    }

    /// Whether it goes through its elements in the order of memory, from the first.
    pub fn is_dense(&self) -> bool {
        let sizes: [u32; MAX_RANK] = self.axes(&self.sizes_outer, [self.inner[0], self.inner[1]]);
        let strides: [u32; MAX_RANK] = self.axes(&self.strides_outer, [self.inner[2], self.inner[3]]);
        let mut next = 1;
        let in_order = (0..MAX_RANK).rev().all(|axis| {
            let fits = sizes[axis] == 1 || strides[axis] == next;
            next *= sizes[axis];
            fits
        });
        in_order && self.offset[0] == 0
    }

    /// Whether rows of the last axis are of neighbours, and start at whole vectors of four.
    pub fn is_in_vectors(&self) -> bool {
        let starts = self.strides_outer.iter().chain([&self.inner[2], &self.offset[0]]);
        self.inner[3] == 1 && starts.into_iter().all(|start| start.is_multiple_of(4))
    }

    /// Whether rows of the last axis are of whole fours, as the shader's constant `IN_FOURS` says.
    pub fn is_in_fours(&self) -> bool {
        self.inner[1].is_multiple_of(4)
    }

    /// Whether all its elements are the first of its buffer.
    pub fn is_one_number(&self) -> bool {
        let sizes: [u32; MAX_RANK] = self.axes(&self.sizes_outer, [self.inner[0], self.inner[1]]);
        let strides: [u32; MAX_RANK] = self.axes(&self.strides_outer, [self.inner[2], self.inner[3]]);
        self.offset[0] == 0 && sizes.iter().zip(strides).all(|(&size, stride)| size == 1 || stride == 0)
    }

    /// `count` elements in a row, of a dense view or of one number.
    pub fn part(&self, count: usize) -> View {
        let step = u32::from(self.is_dense());
        let count = count as u32;
        View { sizes_outer: [1; 4], strides_outer: [0; 4], inner: [1, count, 0, step], offset: [0; 4] }
    }

    fn axes(&self, outer: &[u32; 4], [last_but_one, last]: [u32; 2]) -> [u32; MAX_RANK] {
        [outer[0], outer[1], outer[2], outer[3], last_but_one, last]
    }

    /// The size of the last axis.
    pub fn row(&self) -> usize {
        self.inner[1] as usize
    }

    /// The distance between neighbours along the last axis.
    pub fn step(&self) -> usize {
        self.inner[3] as usize
    }

    /// Where the first element of a row of the last axis lies.
    pub fn row_start(&self, row: usize) -> usize {
        let mut rest = row;
        let mut at = self.offset[0] as usize + rest % self.inner[0] as usize * self.inner[2] as usize;
        rest /= self.inner[0] as usize;
        for axis in (0..4).rev() {
            at += rest % self.sizes_outer[axis] as usize * self.strides_outer[axis] as usize;
            rest /= self.sizes_outer[axis] as usize;
        }
        at
    }
}
