//! What takes the place of a dispatch on a device.

use rustc_hash::FxHashMap;

use super::{AnyKernel, Kernel, Traits, words};
use crate::buffer::BufferRef;
use crate::dtype::DType;

/// Dispatches in the place of one, as they are recorded, and the buffers between them.
pub struct Lowering<'a> {
    /// Of the device that is to run them.
    pub traits: &'a Traits,
    new_id: &'a mut dyn FnMut() -> u64,
    kept: &'a mut Kept,
    /// What was recorded.
    pub dispatches: Vec<Lowered>,
    /// What ends with the last of them.
    pub temporaries: Vec<BufferRef>,
}

/// What was found of buffers for one dispatch, and serves those behind it, of later recordings too, until the buffer is written or
/// ends: what is frozen is looked at once.
#[derive(Default)]
pub struct Kept(FxHashMap<u64, Vec<(BufferRef, BufferRef)>>);

impl Kept {
    /// The buffers that hold what was found of these, which is no longer so.
    pub fn forget(&mut self, buffers: impl Iterator<Item = u64>) -> impl Iterator<Item = BufferRef> {
        buffers.filter_map(|buffer| self.0.remove(&buffer)).flatten().map(|(_, found)| found)
    }

    /// Those of all.
    pub fn forget_all(&mut self) -> impl Iterator<Item = BufferRef> {
        self.0.drain().flat_map(|(_, found)| found).map(|(_, found)| found)
    }
}

/// One of the dispatches.
pub struct Lowered {
    /// Its kernel.
    pub kernel: &'static AnyKernel,
    /// The words of its parameters.
    pub params: Vec<u32>,
    /// Its buffers, in the order of its bindings.
    pub buffers: Vec<BufferRef>,
}

impl<'a> Lowering<'a> {
    /// Nothing so far. `new_id` gives buffers their names, and `kept` has what was found before.
    pub fn new(traits: &'a Traits, new_id: &'a mut dyn FnMut() -> u64, kept: &'a mut Kept) -> Lowering<'a> {
        Lowering { traits, new_id, kept, dispatches: Vec::new(), temporaries: Vec::new() }
    }

    /// What was found of a buffer, by an earlier dispatch or by dispatches that `find` records now, in a buffer of so many elements.
    pub fn found(&mut self, of: BufferRef, elements: usize, find: impl FnOnce(BufferRef, &mut Self)) -> BufferRef {
        let known = self.kept.0.get(&of.id).and_then(|found| found.iter().find(|(buffer, _)| *buffer == of));
        if let Some((_, found)) = known {
            return *found;
        }
        let found = BufferRef::new((self.new_id)(), DType::F32, elements);
        find(found, self);
        self.kept.0.entry(of.id).or_default().push((of, found));
        found
    }

    /// A buffer for the dispatches alone.
    pub fn buffer(&mut self, dtype: DType, elements: usize) -> BufferRef {
        let buffer = BufferRef::new((self.new_id)(), dtype, elements);
        self.temporaries.push(buffer);
        buffer
    }

    /// Records a dispatch of kernel `K`.
    pub fn dispatch<K: Kernel>(&mut self, params: K::Params, buffers: &[BufferRef]) {
        self.dispatches.push(Lowered { kernel: AnyKernel::of::<K>(), params: words(&params), buffers: buffers.to_vec() });
    }
}
