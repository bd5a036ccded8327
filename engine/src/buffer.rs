//! Buffers by name.

use crate::dtype::DType;

/// A buffer by name, or a part of one. Where it lies is decided when the recording is placed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BufferRef {
    /// Never used twice on one device.
    pub id: u64,
    /// The type of its elements.
    pub dtype: DType,
    /// How many elements are meant.
    pub elements: usize,
    /// The first of them.
    pub start: usize,
    /// How many elements the whole buffer holds.
    pub whole: usize,
}

impl BufferRef {
    /// Parts start and end at multiples of so many elements: what every device can bind.
    pub const PART: usize = 64;

    /// All of a new buffer.
    pub fn new(id: u64, dtype: DType, elements: usize) -> BufferRef {
        BufferRef { id, dtype, elements, start: 0, whole: elements }
    }

    /// So many of its elements from `start` on.
    pub fn part(&self, start: usize, elements: usize) -> BufferRef {
        BufferRef { start: self.start + start, elements, ..*self }
    }

    /// Whether it is less than its buffer.
    pub fn is_part(&self) -> bool {
        self.elements != self.whole
    }

    /// Whether two have memory in common.
    pub fn overlaps(&self, other: &BufferRef) -> bool {
        self.id == other.id && self.start < other.start + other.elements && other.start < self.start + self.elements
    }
}
