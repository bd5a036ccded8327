//! The list of commands that ops leave for a device: plain data, to print, compare and rewrite.

mod chain;
mod group;

use std::fmt;
use std::sync::Arc;

use crate::buffer::BufferRef;
use crate::error::Error;
use crate::kernel::{Access, AnyKernel, Cost};
pub use chain::{Chain, Head, Step, Value};
pub use group::{Group, Member};

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
    /// Runs dispatches of one kernel as one.
    Group {
        /// Which.
        group: Group,
        /// What its members are given.
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
            Command::Dispatch { buffers, .. }
            | Command::Fused { buffers, .. }
            | Command::Group { buffers, .. }
            | Command::Refused { buffers, .. } => buffers,
        }
    }

    /// Whether it runs kernels.
    pub fn is_dispatched(&self) -> bool {
        matches!(self, Command::Dispatch { .. } | Command::Fused { .. } | Command::Group { .. })
    }

    /// What profiles and errors call it.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Upload { .. } => "upload",
            Command::Dispatch { kernel, .. } => kernel.name,
            Command::Fused { .. } => "fused",
            Command::Group { group, .. } => group.kernel.name,
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
            Command::Group { group, .. } => {
                let costs = || group.members().map(|member| of(group.kernel, &member.params));
                Cost { flops: costs().map(|cost| cost.flops).sum(), bytes: costs().map(|cost| cost.bytes).sum() }
            }
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
            Command::Group { group, buffers } => (&group.access, buffers),
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
            Command::Group { group, buffers } => {
                let alone: Vec<String> = group.dispatches(buffers).map(|dispatch| format!("{dispatch:?}")).collect();
                write!(f, "group of {}", alone.join("; "))
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
        self.commands.iter().filter(|command| command.is_dispatched()).count()
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command:?}"))
    }
}
