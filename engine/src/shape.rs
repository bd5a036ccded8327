//! Shapes, strides and views.
//!
//! A [`Layout`] maps an index of a tensor to an element of its buffer. Reshape, permute, slice and expand change the layout
//! alone, so they cost nothing on any device.

use std::fmt;
use std::ops::{Deref, Range};

/// The most axes a tensor may have.
pub const MAX_RANK: usize = 6;

/// The sizes of a tensor's axes, outermost first. A scalar has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    sizes: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// The shape with these sizes.
    ///
    /// # Panics
    /// With more than [`MAX_RANK`] axes.
    #[track_caller]
    pub fn new(sizes: &[usize]) -> Self {
        assert!(sizes.len() <= MAX_RANK, "[shape] expected at most {MAX_RANK} axes, got {sizes:?}");
        let mut all = [1; MAX_RANK];
        all[..sizes.len()].copy_from_slice(sizes);
        Shape { sizes: all, rank: sizes.len() }
    }

    /// How many elements a tensor of this shape has: the product of the sizes, 1 for a scalar, and
    /// `usize::MAX` for more than that.
    pub fn elements(&self) -> usize {
        self.iter().fold(1, |elements, &size| elements.saturating_mul(size))
    }

    /// The same shape with one axis of another size.
    pub fn with(mut self, axis: usize, size: usize) -> Self {
        assert!(axis < self.rank, "[shape] expected an axis below {}, got {axis}", self.rank);
        self.sizes[axis] = size;
        self
    }

    /// The shape that both broadcast to, by NumPy's rule: axes are aligned at the end, and a size of 1 stretches.
    ///
    /// # Panics
    /// If two aligned sizes differ and neither is 1.
    #[track_caller]
    pub fn broadcast(&self, other: &Shape) -> Shape {
        let rank = self.rank.max(other.rank);
        let mut sizes = [1; MAX_RANK];
        for (back, size) in sizes[..rank].iter_mut().rev().enumerate() {
            let (a, b) = (self.nth_last(back), other.nth_last(back));
            assert!(a == b || a == 1 || b == 1, "[broadcast] expected sizes that agree or are 1, got {self:?} and {other:?}");
            *size = if a == 1 { b } else { a };
        }
        Shape { sizes, rank }
    }

    fn nth_last(&self, back: usize) -> usize {
        if back < self.rank { self.sizes[self.rank - 1 - back] } else { 1 }
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    #[track_caller]
    fn from(sizes: [usize; N]) -> Self {
        Shape::new(&sizes)
    }
}

impl From<&[usize]> for Shape {
    #[track_caller]
    fn from(sizes: &[usize]) -> Self {
        Shape::new(sizes)
    }
}

impl From<Vec<usize>> for Shape {
    #[track_caller]
    fn from(sizes: Vec<usize>) -> Self {
        Shape::new(&sizes)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

/// How a tensor lies in its buffer: element (i, j, …) is at `offset + i * strides[0] + j * strides[1] + …`, in elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The sizes of the axes.
    pub shape: Shape,
    strides: [usize; MAX_RANK],
    /// Where element (0, 0, …) lies.
    pub offset: usize,
}

impl Layout {
    /// Row-major from the buffer's start, without gaps.
    pub fn contiguous(shape: Shape) -> Self {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for axis in (0..shape.len()).rev() {
            strides[axis] = step;
            // One too large to exist is refused by its device.
            step = shape[axis].saturating_mul(step);
        }
        Layout { shape, strides, offset: 0 }
    }

    /// The distance in elements between neighbours along each axis; 0 along an expanded one.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.len()]
    }

    /// Whether it is row-major without gaps, from whichever offset.
    pub fn is_dense(&self) -> bool {
        let mut step = 1;
        for axis in (0..self.shape.len()).rev() {
            if self.shape[axis] != 1 && self.strides[axis] != step {
                return false;
            }
            step *= self.shape[axis];
        }
        true
    }

    /// The axes in another order: axis `i` of the result is axis `order[i]` of this.
    #[track_caller]
    pub fn permute(&self, order: &[usize]) -> Self {
        let rank = self.shape.len();
        let mut seen = [false; MAX_RANK];
        let valid = order.len() == rank && order.iter().all(|&axis| axis < rank && !std::mem::replace(&mut seen[axis], true));
        assert!(valid, "[permute] expected an order of {rank} axes, got {order:?}");
        let mut to = *self;
        for (axis, &from) in order.iter().enumerate() {
            to.shape = to.shape.with(axis, self.shape[from]);
            to.strides[axis] = self.strides[from];
        }
        to
    }

    /// Part of one axis.
    #[track_caller]
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Self {
        assert!(axis < self.shape.len(), "[slice] expected an axis of {:?}, got {axis}", self.shape);
        assert!(
            range.start <= range.end && range.end <= self.shape[axis],
            "[slice] expected a range within axis {axis} of {:?}, got {range:?}",
            self.shape
        );
        let mut to = *self;
        to.shape = to.shape.with(axis, range.len());
        to.offset += range.start * self.strides[axis];
        to
    }

    /// Stretched to `shape` by NumPy's broadcasting rule; stretched axes have stride 0.
    #[track_caller]
    pub fn expand(&self, shape: Shape) -> Self {
        assert!(
            shape.len() >= self.shape.len() && self.shape.broadcast(&shape) == shape,
            "[expand] expected a shape that {:?} broadcasts to, got {shape:?}",
            self.shape
        );
        let added = shape.len() - self.shape.len();
        let mut strides = [0; MAX_RANK];
        for axis in added..shape.len() {
            let from = axis - added;
            strides[axis] = if self.shape[from] == shape[axis] { self.strides[from] } else { 0 };
        }
        Layout { shape, strides, offset: self.offset }
    }

    /// The same elements, in the same order, under another shape; `None` where no strides can say so without a copy.
    #[track_caller]
    pub fn reshape(&self, shape: Shape) -> Option<Self> {
        assert!(
            shape.elements() == self.shape.elements(),
            "[reshape] expected {} elements as in {:?}, got {shape:?}",
            self.shape.elements(),
            self.shape
        );
        if self.is_dense() {
            return Some(Layout { offset: self.offset, ..Layout::contiguous(shape) });
        }
        self.reshape_strided(shape)
    }

    /// Matches runs of old axes that are dense among themselves with runs of new axes of the same product.
    fn reshape_strided(&self, shape: Shape) -> Option<Self> {
        let old: Vec<(usize, usize)> =
            self.shape.iter().copied().zip(self.strides().iter().copied()).filter(|&(size, _)| size != 1).collect();
        let mut to = Layout { offset: self.offset, ..Layout::contiguous(shape) };
        let (mut next_old, mut axis) = (0, 0);
        while next_old < old.len() {
            let first = next_old;
            let (mut old_product, mut new_product) = (old[next_old].0, 1);
            next_old += 1;
            let new_first = axis;
            while old_product != new_product || (axis < shape.len() && shape[axis] == 1) {
                if new_product < old_product || shape.get(axis) == Some(&1) {
                    new_product *= *shape.get(axis)?;
                    axis += 1;
                } else {
                    old_product *= old.get(next_old)?.0;
                    next_old += 1;
                }
            }
            let run = &old[first..next_old];
            if run.windows(2).any(|pair| pair[0].1 != pair[1].0 * pair[1].1) {
                return None;
            }
            let mut step = run[run.len() - 1].1;
            for new_axis in (new_first..axis).rev() {
                to.strides[new_axis] = step;
                step *= shape[new_axis];
            }
        }
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offsets(layout: &Layout) -> Vec<usize> {
        let mut all = vec![layout.offset];
        for (&size, &stride) in layout.shape.iter().zip(layout.strides()) {
            all = all.iter().flat_map(|start| (0..size).map(move |i| start + i * stride)).collect();
        }
        all
    }

    #[test]
    fn a_transposed_matrix_cannot_be_flattened_but_a_split_axis_can_be_moved() {
        let matrix = Layout::contiguous([4, 6].into());
        assert_eq!(matrix.permute(&[1, 0]).reshape([24].into()), None);
        let heads = matrix.reshape([4, 2, 3].into()).unwrap().permute(&[1, 0, 2]);
        assert_eq!(heads.strides(), &[3, 6, 1]);
    }

    #[test]
    fn expanding_repeats_without_moving() {
        let row = Layout::contiguous([1, 3].into()).expand([2, 2, 3].into());
        assert_eq!(offsets(&row), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn reshape_keeps_the_order_of_elements(
            sizes in prop::collection::vec(1usize..5, 1..5), split in 0usize..4, swap: bool, cut in 0usize..3
        ) {
            let mut layout = Layout::contiguous(Shape::new(&sizes));
            if swap && sizes.len() > 1 {
                let order: Vec<usize> = (0..sizes.len()).rev().collect();
                layout = layout.permute(&order);
            }
            layout = layout.slice(0, cut.min(layout.shape[0] - 1)..layout.shape[0]);
            let mut merged: Vec<usize> = layout.shape.to_vec();
            let axis = split % merged.len();
            if axis + 1 < merged.len() {
                let size = merged.remove(axis);
                merged[axis] *= size;
            }
            if let Some(view) = layout.reshape(Shape::new(&merged)) {
                prop_assert_eq!(offsets(&view), offsets(&layout));
            }
        }
    }
}
