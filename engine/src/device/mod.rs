//! Devices: opening one, and what is recorded for it.

mod compilation;
mod config;
mod cpu;
mod executor;
mod gpu;
mod host;
mod lost;
pub mod parallel;
mod profile;
mod tune;
mod watch;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{Access, AnyKernel, Traits};
use crate::recording::{Command, Payload, Recording};

pub use compilation::Compilation;
pub use config::{Config, MatmulPrecision};
pub(crate) use executor::Run;
use executor::{Backend, Executor};
pub use gpu::{AdapterFeatures, AdapterInfo, AdapterLimits, MatrixShape, adapters};
pub(crate) use host::{HostBuffer, Reading};
pub(crate) use profile::Profile;
pub use profile::Span;
pub use watch::NonFinite;
use watch::Watch;

/// Bytes of uploads that may wait on the host before they are sent.
const PENDING_UPLOADS: usize = 64 << 20;
/// Commands that may wait before they are run: enough to fuse and to share memory, few enough that a GPU is never idle for long.
const PENDING_COMMANDS: usize = 2048;

/// Fills guarded memory that nothing was written to: NaN in every floating-point type, so that whoever reads it shows it.
const POISON: u8 = 0xFF;

/// Something that runs recordings. Cheap to clone: clones are the same device.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    name: String,
    words: Vec<String>,
    next_id: AtomicU64,
    largest_tensor: usize,
    /// What its kernels may depend on, if it is a GPU.
    traits: Option<Traits>,
    pending: Mutex<Pending>,
    executor: Mutex<Executor>,
}

#[derive(Default)]
struct Pending {
    recording: Recording,
    upload_bytes: usize,
    /// The last update in place of each live buffer that had one: when, as an id of that moment, and by what.
    updated: FxHashMap<u64, (u64, &'static str)>,
    /// The rules of the tape that are being applied, those inside others behind them.
    applying: Vec<Applying>,
}

/// A rule of the tape at work.
struct Applying {
    thread: ThreadId,
    op: &'static str,
    /// When the tape was given it.
    node: u64,
}

impl Pending {
    /// Of what the rule at work on this thread reads, the op that has written into it since it was recorded.
    fn stale(&self, kernel: &AnyKernel, buffers: &[BufferRef]) -> Option<(&'static str, &'static str)> {
        if self.updated.is_empty() || self.applying.is_empty() {
            return None;
        }
        let this = thread::current().id();
        let Applying { op, node, .. } = self.applying.iter().rfind(|applying| applying.thread == this)?;
        let reads = kernel.access.iter().zip(buffers).filter(|(access, _)| **access != Access::Write);
        // What the rule has made itself is younger than its node.
        let mut updated = reads.filter(|(_, buffer)| buffer.id < *node).filter_map(|(_, buffer)| self.updated.get(&buffer.id));
        updated.find(|(when, _)| when > node).map(|(_, by)| (*op, *by))
    }
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Held by live tensors.
    pub in_use: u64,
    /// The most that was in use since [`Device::reset_peak`].
    pub peak: u64,
    /// The most that live tensors had of it: the rest of the peak is what placement wastes.
    pub peak_live: u64,
    /// Taken from the system, to be used again.
    pub reserved: u64,
}

impl Device {
    /// Opens `auto`, `cpu`, `gpu`, or `gpu:<name or index>`. `auto` takes the best real GPU; where the only adapter is a
    /// software one, or none, it takes the CPU, which is faster.
    ///
    /// # Errors
    /// [`NoDevice`](crate::Error::NoDevice) or [`NoAdapter`](crate::Error::NoAdapter) where there is none such,
    /// [`Open`](crate::Error::Open) where the driver refuses.
    pub fn open(name: &str) -> Result<Device> {
        Device::open_with(name, &Config::default())
    }

    /// [`open`](Self::open), with a configuration of one's own.
    pub fn open_with(name: &str, config: &Config) -> Result<Device> {
        let mut words = Vec::new();
        let backend = Backend::open(name, config, &mut words)?;
        Ok(Device(Arc::new(Inner {
            name: backend.name(),
            words,
            next_id: AtomicU64::new(1),
            largest_tensor: backend.limits()[0].min(size_of::<f32>().saturating_mul(u32::MAX as usize)),
            traits: backend.traits().cloned(),
            pending: Mutex::default(),
            executor: Mutex::new(Executor::new(backend, config)),
        })))
    }

    /// The CPU backend.
    pub fn cpu() -> Device {
        Device::open("cpu").expect("the CPU is always there")
    }

    /// The CPU twins run in f64: what every other device is checked against. Its f32 tensors hold f64.
    pub fn reference() -> Device {
        Device::open("reference").expect("the CPU is always there")
    }

    /// What to call it: the adapter's name and backend.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What there was to say when it was opened: a cache that is ignored, and why.
    pub fn words(&self) -> &[String] {
        &self.0.words
    }

    /// Whether it is the CPU backend.
    pub fn is_cpu(&self) -> bool {
        self.0.traits.is_none()
    }

    /// What products round their operands to here: [`MatmulPrecision::High`] only where that was asked for and there are matrix
    /// units for it.
    pub fn matmul_precision(&self) -> MatmulPrecision {
        match self.traits().and_then(|traits| traits.halves) {
            Some(_) => MatmulPrecision::High,
            None => MatmulPrecision::Highest,
        }
    }

    /// The most bytes of a tensor of f32 that any kernel can be given.
    pub(crate) fn largest_tensor(&self) -> usize {
        self.0.largest_tensor
    }

    pub(crate) fn traits(&self) -> Option<&Traits> {
        self.0.traits.as_ref()
    }

    /// Runs everything recorded so far. On a GPU the work may still be under way when this returns.
    ///
    /// # Errors
    /// What the device met, now or since the last call. What was to be written is lost then, and whatever is computed from it: reading
    /// that is the same error. Everything else is as it was, and the device goes on, unless it is [`Lost`](crate::Error::Lost).
    pub fn flush(&self) -> Result<()> {
        self.run(&mut self.executor(), None).map(|_| ())
    }

    /// Waits until everything recorded so far has been run.
    pub fn wait(&self) -> Result<()> {
        let mut executor = self.executor();
        self.run(&mut executor, None)?;
        executor.backend.wait()
    }

    /// A copy of what has been recorded and not yet run.
    pub fn recorded(&self) -> Recording {
        self.pending().recording.clone()
    }

    /// Memory held now, and at most.
    pub fn memory(&self) -> Memory {
        let slots = &self.executor().slots;
        Memory { in_use: slots.in_use(), peak: slots.peak(), peak_live: slots.peak_live(), reserved: slots.reserved() }
    }

    /// The time that the host has spent so far on turning commands into the driver's own and handing them over; on the
    /// CPU, on running them.
    pub fn encoding_time(&self) -> Duration {
        self.executor().encoding
    }

    /// What the driver's compiler made of the kernels that were met since this was last asked, each shader with each set of constants
    /// once; nothing where the device was not opened to ask ([`Config::inspects`]).
    pub fn compilations(&self) -> Vec<Compilation> {
        self.executor().backend.compilations()
    }

    /// Starts measuring [`Memory::peak`] anew.
    pub fn reset_peak(&self) {
        self.executor().slots.reset_peak();
    }

    /// Runs `work` with every result looked at, and says which kernel was the first to write one that is not finite. Slow:
    /// it is for the step that failed.
    pub fn first_non_finite(&self, work: impl FnOnce() -> Result<()>) -> Result<Option<NonFinite>> {
        self.flush()?;
        self.executor().watch = Some(Watch::default());
        let outcome = work().and_then(|()| self.flush());
        let watch = self.executor().watch.take();
        outcome.map(|()| watch.and_then(|watch| watch.found))
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn same_as(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn record_upload(&self, to: BufferRef, data: Payload) {
        let bytes = (*data).as_ref().len();
        assert!(bytes == to.elements * to.dtype.size(), "[upload] expected {} bytes, got {bytes}", to.elements * to.dtype.size());
        let waiting = {
            let mut pending = self.pending();
            pending.upload_bytes += bytes;
            pending.recording.commands.push(Command::Upload { to, data });
            pending.upload_bytes
        };
        self.run_if(waiting >= PENDING_UPLOADS);
    }

    pub(crate) fn record_dispatch(&self, kernel: &'static AnyKernel, params: Vec<u32>, buffers: Vec<BufferRef>) {
        debug_assert_eq!(kernel.access.len(), buffers.len(), "[{}] expected a buffer a binding", kernel.name);
        let mut pending = self.pending();
        if let Some((op, by)) = pending.stale(kernel, &buffers) {
            drop(pending);
            panic!("[{op}] expected what its gradient needs as it was, and [{by}] has written into it since");
        }
        for (_, updated) in kernel.access.iter().zip(&buffers).filter(|(access, _)| **access == Access::Update) {
            pending.updated.insert(updated.id, (self.next_id(), kernel.name));
        }
        pending.recording.commands.push(Command::Dispatch { kernel, params, buffers });
        let waiting = pending.recording.commands.len();
        drop(pending);
        self.run_if(waiting >= PENDING_COMMANDS);
    }

    /// Stands in the place of a dispatch that cannot be.
    pub(crate) fn record_refused(&self, kernel: &'static AnyKernel, buffers: &[BufferRef], error: Error) {
        let written = kernel.access.iter().zip(buffers).filter(|(access, _)| **access != Access::Read);
        let buffers = written.map(|(_, buffer)| *buffer).collect();
        self.pending().recording.commands.push(Command::Refused { error, buffers });
    }

    /// An upload into a buffer that has been in use.
    pub(crate) fn record_replacement(&self, of: BufferRef, data: Payload) {
        let now = self.next_id();
        self.pending().updated.insert(of.id, (now, "replace"));
        self.record_upload(of, data);
    }

    pub(crate) fn record_free(&self, buffer: BufferRef) {
        let mut pending = self.pending();
        pending.updated.remove(&buffer.id);
        pending.recording.commands.push(Command::Free { buffer });
    }

    /// Applies a rule that the tape was given at `node`. It panics if it reads what has been written in place since.
    pub(crate) fn apply<T>(&self, op: &'static str, node: u64, rule: impl FnOnce() -> T) -> T {
        /// Ends it, by a panic too.
        struct Ends<'a>(&'a Device, ThreadId);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                let mut pending = self.0.pending();
                let last = pending.applying.iter().rposition(|applying| applying.thread == self.1);
                last.map(|last| pending.applying.remove(last));
            }
        }
        let ends = Ends(self, thread::current().id());
        self.pending().applying.push(Applying { thread: ends.1, op, node });
        rule()
    }

    /// Brings a buffer's elements, as they are after everything recorded so far. Nobody else waits for them: the device goes on.
    pub(crate) fn download(&self, from: BufferRef) -> Reading {
        let begun = self.run(&mut self.executor(), Some(from));
        begun.map_or_else(|error| Reading::here(Err(error)), |mut all| all.pop().expect("a download brings a buffer"))
    }

    /// Runs early. An op cannot fail, so an error waits for the next call that can.
    fn run_if(&self, enough: bool) {
        if enough {
            let mut executor = self.executor();
            let error = self.run_pending(&mut executor, None).err();
            executor.untold = executor.untold.take().or(error);
        }
    }

    fn run(&self, executor: &mut Executor, download: Option<BufferRef>) -> Result<Vec<Reading>> {
        match executor.untold.take() {
            Some(error) => Err(error),
            None => self.run_pending(executor, download),
        }
    }

    fn run_pending(&self, executor: &mut Executor, download: Option<BufferRef>) -> Result<Vec<Reading>> {
        let mut recording = {
            let mut pending = self.pending();
            pending.upload_bytes = 0;
            std::mem::take(&mut pending.recording)
        };
        if let Some(from) = download {
            recording.commands.push(Command::Download { from });
        }
        executor.run(recording)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn executor(&self) -> MutexGuard<'_, Executor> {
        self.0.executor.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Bytes that elements take where f32 has its own size: whole vectors of four words, at least one, so that a shader may read
/// and write any tensor as such.
pub(crate) fn bytes_of(elements: usize, dtype: DType) -> usize {
    (elements * dtype.size()).next_multiple_of(16).max(16)
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl DType {
    /// Bytes of one element where f32 tensors hold `R`.
    pub(crate) fn size_in<R>(self) -> usize {
        if self == DType::F32 { size_of::<R>() } else { self.size() }
    }
}
