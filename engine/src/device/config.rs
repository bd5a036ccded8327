//! How a device is opened.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a device is opened; the default is what the program uses.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Poisons every new buffer, and the bytes before and behind it, with 0xFF, which is NaN, and checks the latter after every
    /// run: an error, [`Rejected`](crate::Error::Rejected), names the kernel that wrote outside its output. What a kernel reads
    /// there, or leaves out, is NaN in its result.
    pub guards: bool,
    /// Takes this shader of every kernel that has so many, instead of the one that suits the adapter.
    pub shader: Option<usize>,
    /// What products may round their operands to.
    pub matmul_precision: MatmulPrecision,
    /// Runs every command as it was recorded, on its own.
    pub no_fusion: bool,
    /// Whether a GPU runs dispatches as one that do not wait for each other; without it, all do but those that are the CPU, which gain
    /// nothing by it.
    pub groups: Option<bool>,
    /// The most bytes that tensors may hold at once; more is an error, [`OutOfMemory`](crate::Error::OutOfMemory). Without it, what the
    /// system or the driver gives.
    pub memory_limit: Option<u64>,
    /// The most bytes of a buffer that a kernel is given at once on a GPU, if the adapter does not allow less. Weights past it are read
    /// in parts; any other tensor past it is an error, [`TooLarge`](crate::Error::TooLarge).
    pub binding_limit: Option<u64>,
    /// Places recordings in memory and computes nothing; whatever is read is 0. [`Memory`](super::Memory) is then what the same work would
    /// take, and a profile has the dispatches that it would start.
    pub dry: bool,
    /// As `dry`, but the driver's compiler is asked what it makes of every kernel, by each shader that is worth a try, for
    /// [`Device::compilations`](super::Device::compilations). Vulkan alone: [`Open`](crate::Error::Open) says so elsewhere.
    pub inspects: bool,
    /// Times the shaders of a kernel where it is first needed, and keeps in this folder which was the fastest, and what the
    /// driver compiled. Without it shaders are taken by rule.
    pub cache: Option<PathBuf>,
}

/// What matrix products may round their operands to. They are summed in f32 in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatmulPrecision {
    /// f32.
    #[default]
    Highest,
    /// f16, on devices that have matrix units for it: several times as fast, and 11 bits instead of 24. Operands are brought into f16's
    /// range by a power of two each; those of attention but for gradients are not, and must be in it.
    High,
}
