//! What takes the place of a dispatch on a device.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{AnyKernel, Kernel, Traits, words};
use crate::buffer::BufferRef;
use crate::dtype::DType;

/// What takes the place of a dispatch, as it is recorded, and the buffers between.
pub struct Lowering<'a> {
    /// Of the device that is to run it.
    pub traits: &'a Traits,
    new_id: &'a mut dyn FnMut() -> u64,
    kept: &'a mut Kept,
    /// What was recorded.
    pub steps: Vec<Lowered>,
    /// What ends with the last of it.
    pub temporaries: Vec<BufferRef>,
}

/// What was found of buffers for one dispatch, and serves those behind it, until the buffer is written or ends: some of it in later
/// recordings too, and some, which takes much memory, only as long as it is among the last that were asked for.
#[derive(Default)]
pub struct Kept {
    lasting: FxHashMap<u64, Vec<Found>>,
    passing: VecDeque<Found>,
}

/// Buffers that hold what a kernel, by its name, found of another.
struct Found {
    of: BufferRef,
    by: &'static str,
    buffers: Vec<BufferRef>,
}

impl Found {
    fn is<K: Kernel>(&self, of: BufferRef) -> bool {
        self.of == of && self.by == K::NAME
    }
}

impl Kept {
    /// How much of what passes is kept: what the products of one input, and those of a gradient, share. A dispatch has fewer of it.
    const PASSING: usize = 4;

    /// The buffers that hold what was found of these, which is no longer so.
    pub fn forget(&mut self, changed: impl Iterator<Item = u64>) -> Vec<BufferRef> {
        let mut gone = Vec::new();
        for id in changed {
            gone.extend(self.lasting.remove(&id).into_iter().flatten());
            while let Some(at) = self.passing.iter().position(|found| found.of.id == id) {
                gone.extend(self.passing.remove(at));
            }
        }
        gone.into_iter().flat_map(|found| found.buffers).collect()
    }

    /// Those of all that passes.
    pub fn forget_passing(&mut self) -> impl Iterator<Item = BufferRef> {
        self.passing.drain(..).flat_map(|found| found.buffers)
    }

    /// Those of all that lasts.
    pub fn forget_lasting(&mut self) -> impl Iterator<Item = BufferRef> {
        self.lasting.drain().flat_map(|(_, found)| found).flat_map(|found| found.buffers)
    }
}

/// A step of it.
pub enum Lowered {
    /// A kernel, the words of its parameters, and its buffers, in the order of its bindings.
    Dispatch(&'static AnyKernel, Vec<u32>, Vec<BufferRef>),
    /// The end of a buffer.
    Free(BufferRef),
}

impl<'a> Lowering<'a> {
    /// Nothing so far. `new_id` gives buffers their names, and `kept` has what was found before.
    pub fn new(traits: &'a Traits, new_id: &'a mut dyn FnMut() -> u64, kept: &'a mut Kept) -> Lowering<'a> {
        Lowering { traits, new_id, kept, steps: Vec::new(), temporaries: Vec::new() }
    }

    /// What kernel `K` found of a buffer, by an earlier dispatch or by dispatches that `find` records now, in buffers of so many elements.
    pub fn found<K: Kernel, const N: usize>(
        &mut self,
        of: BufferRef,
        sizes: [(DType, usize); N],
        find: impl FnOnce([BufferRef; N], &mut Self),
    ) -> [BufferRef; N] {
        let known = self.kept.lasting.get(&of.id).and_then(|found| found.iter().find(|found| found.is::<K>(of)));
        if let Some(found) = known {
            return std::array::from_fn(|at| found.buffers[at]);
        }
        let buffers = self.find(sizes, find);
        self.kept.lasting.entry(of.id).or_default().push(Found { of, by: K::NAME, buffers: buffers.to_vec() });
        buffers
    }

    /// The same, kept only as long as it is among the last that were asked for.
    pub fn found_for_now<K: Kernel, const N: usize>(
        &mut self,
        of: BufferRef,
        sizes: [(DType, usize); N],
        find: impl FnOnce([BufferRef; N], &mut Self),
    ) -> [BufferRef; N] {
        let known = self.kept.passing.iter().position(|found| found.is::<K>(of));
        let found = known.and_then(|at| self.kept.passing.remove(at)).unwrap_or_else(|| Found {
            of,
            by: K::NAME,
            buffers: self.find(sizes, find).to_vec(),
        });
        let buffers = std::array::from_fn(|at| found.buffers[at]);
        self.kept.passing.push_back(found);
        let past = self.kept.passing.len().saturating_sub(Kept::PASSING);
        self.steps.extend(self.kept.passing.drain(..past).flat_map(|found| found.buffers).map(Lowered::Free));
        buffers
    }

    fn find<const N: usize>(
        &mut self,
        sizes: [(DType, usize); N],
        find: impl FnOnce([BufferRef; N], &mut Self),
    ) -> [BufferRef; N] {
        let buffers = sizes.map(|(dtype, elements)| BufferRef::new((self.new_id)(), dtype, elements));
        find(buffers, self);
        buffers
    }

    /// A buffer for the dispatches alone.
    pub fn buffer(&mut self, dtype: DType, elements: usize) -> BufferRef {
        let buffer = BufferRef::new((self.new_id)(), dtype, elements);
        self.temporaries.push(buffer);
        buffer
    }

    /// Records a dispatch of kernel `K`.
    pub fn dispatch<K: Kernel>(&mut self, params: K::Params, buffers: &[BufferRef]) {
        self.steps.push(Lowered::Dispatch(AnyKernel::of::<K>(), words(&params), buffers.to_vec()));
    }
}
