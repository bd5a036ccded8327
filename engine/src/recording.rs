//! The list of commands that ops leave for a device: plain data, to print, compare and rewrite.

use std::fmt;
use std::sync::Arc;

use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel};

/// A buffer by name. Where it lies is decided when the recording is placed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BufferRef {
    /// Never used twice on one device.
    pub id: u64,
    /// The type of its elements.
    pub dtype: DType,
    /// How many elements it holds.
    pub elements: usize,
}

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
    /// Brings a buffer's elements to the host.
    Download {
        /// Where from.
        from: BufferRef,
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
        let (kernel_reads, download) = match self {
            Command::Dispatch { kernel, buffers, .. } => (Some((kernel, buffers)), None),
            Command::Download { from } => (None, Some(*from)),
            _ => (None, None),
        };
        let pairs = kernel_reads.into_iter().flat_map(|(kernel, buffers)| kernel.access.iter().zip(buffers));
        pairs.filter(|(access, _)| **access != Access::Write).map(|(_, buffer)| *buffer).chain(download)
    }

    /// The buffers it writes.
    pub fn writes(&self) -> impl Iterator<Item = BufferRef> + '_ {
        let (kernel_writes, upload) = match self {
            Command::Dispatch { kernel, buffers, .. } => (Some((kernel, buffers)), None),
            Command::Upload { to, .. } => (None, Some(*to)),
            _ => (None, None),
        };
        let pairs = kernel_writes.into_iter().flat_map(|(kernel, buffers)| kernel.access.iter().zip(buffers));
        pairs.filter(|(access, _)| **access != Access::Read).map(|(_, buffer)| *buffer).chain(upload)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |buffer: &BufferRef| format!("%{}:{}[{}]", buffer.id, buffer.dtype, buffer.elements);
        match self {
            Command::Upload { to, .. } => write!(f, "upload {}", name(to)),
            Command::Download { from } => write!(f, "download {}", name(from)),
            Command::Free { buffer } => write!(f, "free %{}", buffer.id),
            Command::Dispatch { kernel, params, buffers } => {
                let buffers: Vec<String> = buffers.iter().map(name).collect();
                let params = (kernel.describe)(bytemuck::cast_slice(params));
                write!(f, "{} {} {params}", kernel.name, buffers.join(" "))
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
        self.commands.iter().filter(|command| matches!(command, Command::Dispatch { .. })).count()
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command:?}"))
    }
}
