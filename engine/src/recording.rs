//! The list of commands that ops leave for a device: plain data, to print, compare and rewrite.

use std::fmt;
use std::sync::Arc;

use crate::buffer::BufferRef;
use crate::error::Error;
use crate::kernel::{Access, AnyKernel, AnyPointwise, AnyRowwise, Cost};

/// Bytes on their way to a device; they may still lie in a mapped file.
pub type Payload = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// One step of a recording.
#[derive(Clone)]
pub enum Command {
    /// Fills a buffer from host memory.
    Upload {
        /// Where to.
        to: BufferRef,
        /// Its elements, little-endian.
        data: Payload,
    },
    /// Runs a kernel.
    Dispatch {
        /// Which.
        kernel: &'static AnyKernel,
        /// Its parameters' bytes (in words, to be aligned).
        params: Vec<u32>,
        /// Its buffers, in the order of its bindings.
        buffers: Vec<BufferRef>,
    },
    /// Runs kernels as one.
    Fused {
        /// Which.
        chain: Chain,
        /// The head's buffers in the order of its bindings, then what the steps read, then what they write.
        buffers: Vec<BufferRef>,
    },
    /// Brings a buffer's elements to the host.
    Download {
        /// Where from.
        from: BufferRef,
    },
    /// Stands where a kernel was not recorded: what it would have written is lost.
    Refused {
        /// Why.
        error: Error,
        /// What it would have written.
        buffers: Vec<BufferRef>,
    },
    /// The last handle is gone: the memory may be used again.
    Free {
        /// The buffer.
        buffer: BufferRef,
    },
}

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
}

impl Command {
    /// The buffers it reads.
    pub fn reads(&self) -> impl Iterator<Item = BufferRef> + '_ {
        self.accesses().filter(|(access, _)| *access != Access::Write).map(|(_, buffer)| buffer)
    }

    /// The buffers it writes.
    pub fn writes(&self) -> impl Iterator<Item = BufferRef> + '_ {
        self.accesses().filter(|(access, _)| *access != Access::Read).map(|(_, buffer)| buffer)
    }

    /// Those of which it writes every element, whatever was there.
    pub fn overwrites(&self) -> impl Iterator<Item = BufferRef> + '_ {
        self.accesses().filter(|(access, _)| *access == Access::Write).map(|(_, buffer)| buffer)
    }

    /// Its buffers, to be replaced by others.
    pub(crate) fn buffers_mut(&mut self) -> &mut [BufferRef] {
        match self {
            Command::Upload { to: buffer, .. } | Command::Download { from: buffer } | Command::Free { buffer } => {
                std::slice::from_mut(buffer)
            }
            Command::Dispatch { buffers, .. } | Command::Fused { buffers, .. } | Command::Refused { buffers, .. } => buffers,
        }
    }

    /// What profiles and errors call it.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Upload { .. } => "upload",
            Command::Dispatch { kernel, .. } => kernel.name,
            Command::Fused { .. } => "fused",
            Command::Download { .. } => "download",
            Command::Refused { .. } => "refused",
            Command::Free { .. } => "free",
        }
    }

    /// The work it does on the device's memory and arithmetic, if it runs kernels.
    pub fn cost(&self) -> Cost {
        let of = |kernel: &AnyKernel, params: &[u32]| (kernel.cost)(bytemuck::cast_slice(params));
        match self {
            Command::Dispatch { kernel, params, .. } => of(kernel, params),
            Command::Fused { chain, buffers } => Cost {
                flops: chain.kernels().map(|(kernel, params)| of(kernel, params).flops).sum(),
                bytes: buffers.iter().map(|buffer| 4 * buffer.elements as u64).sum(),
            },
            Command::Upload { .. } | Command::Download { .. } | Command::Refused { .. } | Command::Free { .. } => Cost::default(),
        }
    }

    /// Its buffers, in the order of the bindings, and how it uses each.
    pub fn accesses(&self) -> impl Iterator<Item = (Access, BufferRef)> + '_ {
        let (access, buffers): (&[Access], &[BufferRef]) = match self {
            Command::Upload { to, .. } => (&[Access::Write], std::slice::from_ref(to)),
            Command::Download { from } => (&[Access::Read], std::slice::from_ref(from)),
            Command::Dispatch { kernel, buffers, .. } => (kernel.access, buffers),
            Command::Fused { chain, buffers } => (&chain.access, buffers),
            Command::Refused { .. } | Command::Free { .. } => (&[], &[]),
        };
        access.iter().copied().zip(buffers.iter().copied())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |buffer: &BufferRef| match buffer.is_part() {
            false => format!("%{}:{}[{}]", buffer.id, buffer.dtype, buffer.elements),
            true => format!("%{}:{}[{}..{}]", buffer.id, buffer.dtype, buffer.start, buffer.start + buffer.elements),
        };
        match self {
            Command::Upload { to, .. } => write!(f, "upload {}", name(to)),
            Command::Download { from } => write!(f, "download {}", name(from)),
            Command::Free { buffer } => write!(f, "free %{}", buffer.id),
            Command::Refused { error, buffers } => {
                let buffers: Vec<String> = buffers.iter().map(name).collect();
                write!(f, "refused {} {error}", buffers.join(" "))
            }
            Command::Dispatch { kernel, params, buffers } => {
                let buffers: Vec<String> = buffers.iter().map(name).collect();
                let params = (kernel.describe)(bytemuck::cast_slice(params));
                write!(f, "{} {} {params}", kernel.name, buffers.join(" "))
            }
            Command::Fused { chain, buffers } => {
                let buffers: Vec<String> = buffers.iter().map(name).collect();
                let head = chain.head.iter().map(|head| head.kernel.name.to_string());
                let steps = chain.steps.iter().map(|step| format!("{}{:?}", step.kernel.name, step.inputs));
                write!(f, "fused {} {}", buffers.join(" "), head.chain(steps).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Commands in the order in which they were recorded.
#[derive(Clone, Default)]
pub struct Recording {
    /// The commands.
    pub commands: Vec<Command>,
}

impl Recording {
    /// How many of its commands run a kernel.
    pub fn dispatches(&self) -> usize {
        self.commands.iter().filter(|command| matches!(command, Command::Dispatch { .. } | Command::Fused { .. })).count()
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command:?}"))
    }
}
