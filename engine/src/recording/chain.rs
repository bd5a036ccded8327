//! Pointwise kernels that run as one.

use crate::kernel::{Access, AnyElementwise, AnyKernel, AnyPointwise, AnyRowwise};

/// Pointwise kernels that run as one: element by element, each step's result goes straight into the steps behind it.
#[derive(Clone)]
pub struct Chain {
    /// A kernel that writes rows, to whose elements the steps are applied as they come.
    pub head: Option<Head>,
    /// Elements of every result.
    pub elements: usize,
    /// What is computed, in this order.
    pub steps: Vec<Step>,
    /// The steps whose results are written.
    pub outputs: Vec<usize>,
    /// How it uses each of its buffers.
    pub access: Vec<Access>,
}

/// The kernel that a chain begins with, if not with a step.
#[derive(Clone)]
pub struct Head {
    /// Which.
    pub kernel: &'static AnyKernel,
    /// Its parameters' bytes (in words, to be aligned).
    pub params: Vec<u32>,
}

/// A pointwise kernel of a chain.
#[derive(Clone)]
pub struct Step {
    /// Which.
    pub kernel: &'static AnyKernel,
    /// Its parameters' bytes (in words, to be aligned).
    pub params: Vec<u32>,
    /// Where its inputs come from.
    pub inputs: Vec<Value>,
}

/// Where a step gets a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Value {
    /// From one of the buffers that the steps read.
    Buffer(usize),
    /// From the head.
    Head,
    /// From an earlier step.
    Step(usize),
}

impl Chain {
    /// Its buffers: those of the head, what the steps read, and what they write.
    pub fn split<'a, T>(&self, buffers: &'a [T]) -> [&'a [T]; 3] {
        let (head, rest) = buffers.split_at(self.head.as_ref().map_or(0, |head| head.kernel.access.len()));
        let (reads, writes) = rest.split_at(rest.len() - self.outputs.len());
        [head, reads, writes]
    }

    /// Its kernels in order, the head's first, with their parameters.
    pub fn kernels(&self) -> impl Iterator<Item = (&'static AnyKernel, &[u32])> {
        let head = self.head.iter().map(|head| (head.kernel, head.params.as_slice()));
        head.chain(self.steps.iter().map(|step| (step.kernel, step.params.as_slice())))
    }
}

impl Head {
    /// What its kernel says of its rows.
    pub fn rowwise(&self) -> &'static AnyRowwise {
        self.kernel.rowwise.as_ref().expect("only kernels that write rows are heads")
    }
}

impl Step {
    /// What its kernel says of one element.
    pub fn pointwise(&self) -> &'static AnyPointwise {
        self.kernel.pointwise.as_ref().expect("only pointwise kernels are fused")
    }

    /// How its kernel is run over some of the elements.
    pub fn elementwise(&self) -> &'static AnyElementwise {
        self.kernel.elementwise.as_ref().expect("each pointwise kernel is")
    }
}
