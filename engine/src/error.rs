//! What the world can do to the engine. Mistakes in shapes are bugs, and panic instead.

/// Everything that can go wrong with a device.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device asked for does not exist.
    #[error("no device {asked:?}: expected auto, cpu, gpu, or gpu:<name or index> of one of: {found}")]
    NoDevice {
        /// What was asked for.
        asked: String,
        /// The adapters that there are.
        found: String,
    },
    /// There is no GPU adapter at all.
    #[error("no GPU adapter found: expected a Vulkan, Metal or DX12 driver")]
    NoAdapter,
    /// The adapter refused to open.
    #[error("{adapter} did not open: {reason}")]
    Open {
        /// The adapter's name.
        adapter: String,
        /// What its driver said.
        reason: String,
    },
    /// Memory ran out.
    #[error("{device} is out of memory, with {in_use} bytes of tensors in use: {reason}")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes held by tensors when it happened.
        in_use: u64,
        /// What the driver said.
        reason: String,
    },
    /// One tensor is larger than the device can bind.
    #[error("a tensor of {bytes} bytes passes the limit of {device}: expected at most {limit} bytes")]
    TooLarge {
        /// The device's name.
        device: String,
        /// The tensor's size.
        bytes: u64,
        /// The largest buffer that a kernel can be given.
        limit: u64,
    },
    /// An op was given an index out of range.
    #[error("[{op}] expected indices below {below}, got {index}")]
    IndexOutOfRange {
        /// The kernel.
        op: &'static str,
        /// The index.
        index: u32,
        /// How many there are to choose from.
        below: u32,
    },
    /// The driver reset or the device went away.
    #[error("{device} was lost: {reason}")]
    Lost {
        /// The device's name.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The driver rejected a kernel or a command.
    #[error("{device} rejected {what}: {reason}")]
    Rejected {
        /// The device's name.
        device: String,
        /// The kernel or command.
        what: String,
        /// What the driver said.
        reason: String,
    },
}

/// A result whose error is the engine's.
pub type Result<T> = std::result::Result<T, Error>;
