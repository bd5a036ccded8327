//! Tensors in parts of larger buffers, so that one dispatch can do for many what it does for one.

use super::Tensor;
use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::shape::{Layout, Shape};

/// Tensors that are taken as one, in each of a few lists.
pub(crate) struct Run<const N: usize> {
    /// Their places in the lists.
    pub members: Vec<usize>,
    /// Of each list: all their elements, one tensor's behind the other's.
    pub joined: [Tensor; N],
}

impl Tensor {
    /// Takes a part of a larger tensor's buffer, to which its elements were copied, for the place of its own. All handles on it
    /// follow.
    pub(crate) fn settle_in(&self, part: Tensor) {
        self.device().record_free(self.reference());
        self.buffer.moved.set(part.buffer).unwrap_or_else(|_| unreachable!("what was moved is a part"));
    }

    /// Whether it can be a part of a larger buffer, with others behind it, and is none yet.
    pub(crate) fn can_move(&self) -> bool {
        let in_parts = self.elements() > 0 && self.elements().is_multiple_of(BufferRef::PART);
        in_parts && self.dtype() == DType::F32 && self.is_whole() && !self.reference().is_part()
    }

    /// The part of a larger buffer that it fills, if it does.
    pub(crate) fn home(&self) -> Option<BufferRef> {
        Some(self.reference()).filter(|reference| self.is_whole() && reference.is_part())
    }

    /// The elements from `start` on, of that shape, of a tensor that fills its buffer.
    pub(crate) fn cut(&self, start: usize, shape: Shape) -> Tensor {
        let buffer = match shape.elements() == self.buffer_elements() {
            true => self.buffer.clone(),
            false => self.place().part(self.reference().start + start, shape.elements()),
        };
        Tensor { buffer, layout: Layout::contiguous(shape), node: None }
    }

    /// Whether another's elements come right behind its own, in one buffer.
    fn is_before(&self, next: &Tensor) -> bool {
        let (here, there) = (self.reference(), next.reference());
        self.is_whole() && next.is_whole() && here.id == there.id && here.start + here.elements == there.start
    }

    /// The runs of these tensors that can be taken as one: those at which the tensors of every list follow each other in one
    /// buffer, and each agrees with the one before it.
    pub(crate) fn runs<const N: usize>(lists: [&[&Tensor]; N], agree: impl Fn(usize, usize) -> bool) -> Vec<Run<N>> {
        let mut order: Vec<usize> = (0..lists[0].len()).collect();
        order.sort_by_key(|&at| (lists[0][at].reference().id, lists[0][at].reference().start));
        let follows = |&before: &usize, &at: &usize| {
            agree(before, at) && lists.iter().all(|tensors| tensors[before].is_before(tensors[at]))
        };
        let run = |members: &[usize]| Run {
            members: members.to_vec(),
            joined: lists.map(|tensors| {
                let first = tensors[members[0]];
                match members.len() {
                    1 => first.detach(),
                    _ => first.cut(0, [members.iter().map(|&at| tensors[at].elements()).sum()].into()),
                }
            }),
        };
        order.chunk_by(follows).map(run).collect()
    }
}
