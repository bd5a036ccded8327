//! What takes the place of a dispatch on a device.

use super::{AnyKernel, Kernel, Traits, words};
use crate::buffer::BufferRef;
use crate::dtype::DType;

/// Dispatches in the place of one, as they are recorded, and the buffers between them.
pub struct Lowering<'a> {
    /// Of the device that is to run them.
    pub traits: &'a Traits,
    new_id: &'a mut dyn FnMut() -> u64,
    /// What was recorded.
    pub dispatches: Vec<Lowered>,
    /// What ends with the last of them.
    pub temporaries: Vec<BufferRef>,
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
    /// Nothing so far. `new_id` gives buffers their names.
    pub fn new(traits: &'a Traits, new_id: &'a mut dyn FnMut() -> u64) -> Lowering<'a> {
        Lowering { traits, new_id, dispatches: Vec::new(), temporaries: Vec::new() }
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
