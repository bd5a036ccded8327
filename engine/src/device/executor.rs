//! What runs recordings, and the only place that tells a CPU from a GPU.

use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use super::lost::Lost;
use super::profile::Profile;
use super::watch::Watch;
use super::{Compilation, Config, HostBuffer, Reading, Span, cpu, gpu};
use crate::buffer::BufferRef;
use crate::error::{Error, Result};
use crate::kernel::{Kept, Traits};
use crate::passes::{self, Place, Placement, Slots};
use crate::recording::{Command, Recording};

/// A backend, and what lasts from one recording to the next.
pub(super) struct Executor {
    pub backend: Backend,
    pub slots: Slots,
    pub watch: Option<Watch>,
    pub profile: Option<Profile>,
    fuses: bool,
    memory_limit: Option<u64>,
    dry: bool,
    /// What [`Device::encoding_time`](super::Device::encoding_time) says.
    pub encoding: Duration,
    /// The name of the last buffer between the dispatches that take the place of one. They are above all others.
    temporaries: u64,
    /// What was found of buffers that are still as they were.
    kept: Kept,
    lost: Lost,
    /// An error that nobody has been told yet.
    pub untold: Option<Error>,
}

pub(super) enum Backend {
    Cpu(cpu::Cpu<f32>),
    Reference(cpu::Cpu<f64>),
    Gpu(Box<gpu::Gpu>),
}

impl Backend {
    /// What [`Device::open`](super::Device::open) takes for such a name. `words` gets what there is to say of its caches.
    pub fn open(name: &str, config: &Config, words: &mut Vec<String>) -> Result<Backend> {
        let adapter = match name {
            "cpu" => None,
            "reference" => return Ok(Backend::Reference(cpu::Cpu::new(config))),
            "auto" => gpu::best_real(),
            _ => Some(gpu::find(name)?),
        };
        Ok(match adapter {
            Some(adapter) => Backend::Gpu(Box::new(gpu::Gpu::open(adapter, config, words)?)),
            None => Backend::Cpu(cpu::Cpu::new(config)),
        })
    }

    pub fn name(&self) -> String {
        match self {
            Backend::Cpu(_) => format!("CPU ({} threads)", rayon::current_num_threads()),
            Backend::Reference(_) => "CPU in f64".to_string(),
            Backend::Gpu(gpu) => gpu.name(),
        }
    }

    /// Asks the driver's compiler, where the device was opened to ask.
    fn ask_compiler(&mut self, recording: &Recording) -> Result<()> {
        match self {
            Backend::Cpu(_) | Backend::Reference(_) => Ok(()),
            Backend::Gpu(gpu) => gpu.ask_compiler(recording),
        }
    }

    pub fn compilations(&mut self) -> Vec<Compilation> {
        match self {
            Backend::Cpu(_) | Backend::Reference(_) => Vec::new(),
            Backend::Gpu(gpu) => gpu.compilations(),
        }
    }

    pub fn traits(&self) -> Option<&Traits> {
        match self {
            Backend::Cpu(_) | Backend::Reference(_) => None,
            Backend::Gpu(gpu) => Some(gpu.traits()),
        }
    }

    /// The recording with dispatches that run as one, where that is of use.
    fn group(&mut self, recording: Recording) -> Recording {
        match self {
            Backend::Cpu(_) | Backend::Reference(_) => recording,
            Backend::Gpu(gpu) => gpu.group(recording),
        }
    }

    /// The most bytes that a kernel can be given at once, and those of a buffer.
    pub fn limits(&self) -> [usize; 2] {
        match self {
            Backend::Cpu(_) | Backend::Reference(_) => [usize::MAX; 2],
            Backend::Gpu(gpu) => [gpu.largest_binding(), gpu.largest_buffer()],
        }
    }

    /// Whether the tensors of a recording are as small as the device takes them, and as kernels do, which count elements in u32.
    fn check_sizes(&self, recording: &Recording) -> Result<()> {
        let [of_binding, of_buffer] = self.limits();
        for command in &recording.commands {
            let is_bound = command.is_dispatched();
            for (_, buffer) in command.accesses() {
                let counted = (u32::MAX as usize).saturating_mul(buffer.dtype.size());
                let bytes = |elements: usize| elements.saturating_mul(buffer.dtype.size());
                let of_binding = if is_bound { of_binding.min(counted) } else { usize::MAX };
                let sizes = [(bytes(buffer.elements), of_binding), (bytes(buffer.whole), of_buffer)];
                if let Some((bytes, limit)) = sizes.into_iter().find(|(bytes, limit)| bytes > limit) {
                    return Err(Error::TooLarge { device: self.name(), bytes: bytes as u64, limit: limit as u64 });
                }
            }
        }
        Ok(())
    }

    pub fn wait(&mut self) -> Result<()> {
        match self {
            Backend::Cpu(_) | Backend::Reference(_) => Ok(()),
            Backend::Gpu(gpu) => gpu.wait(),
        }
    }

    fn bytes(&self, buffer: &BufferRef) -> usize {
        match self {
            Backend::Cpu(cpu) => cpu.bytes(buffer),
            Backend::Reference(cpu) => cpu.bytes(buffer),
            Backend::Gpu(gpu) => gpu.bytes(buffer),
        }
    }

    fn execute(&mut self, run: Run<'_>) -> Result<Vec<Reading>> {
        match self {
            Backend::Cpu(cpu) => cpu.execute(run),
            Backend::Reference(cpu) => cpu.execute(run),
            Backend::Gpu(gpu) => gpu.execute(run),
        }
    }

    /// Comes back to order after a recording that failed: of its slots only these are still there.
    fn recover(&mut self, recording: &Recording, slots: &FxHashSet<usize>) {
        match self {
            Backend::Cpu(cpu) => cpu.recover(recording, slots),
            Backend::Reference(cpu) => cpu.recover(recording, slots),
            Backend::Gpu(gpu) => gpu.recover(slots),
        }
    }

    /// Slots as it can use them.
    fn slots(&self) -> Slots {
        match self {
            Backend::Cpu(_) | Backend::Reference(_) => Slots::cut(),
            Backend::Gpu(_) => Slots::whole(),
        }
    }
}

impl Executor {
    pub fn new(backend: Backend, config: &Config) -> Executor {
        let (slots, encoding) = (backend.slots(), Duration::ZERO);
        let Config { memory_limit, dry, inspects, .. } = *config;
        let fuses = !config.no_fusion;
        Executor {
            backend,
            slots,
            watch: None,
            profile: None,
            fuses,
            memory_limit,
            dry: dry || inspects,
            encoding,
            temporaries: 1 << 63,
            kept: Kept::default(),
            lost: Lost::default(),
            untold: None,
        }
    }

    /// Rewrites a recording, places it and runs it. What one that fails would have written is lost; everything else is as it was.
    ///
    /// # Errors
    /// What the device met; for a download of what was lost, what it was lost by.
    pub fn run(&mut self, recording: Recording) -> Result<Vec<Reading>> {
        let (recording, refused) = self.lost.spare(recording);
        let outcome = self.attempt(recording);
        refused.map_or(outcome, Err)
    }

    fn attempt(&mut self, recording: Recording) -> Result<Vec<Reading>> {
        if recording.commands.is_empty() {
            return Ok(Vec::new());
        }
        let Executor { backend, slots, temporaries, kept, .. } = self;
        let is_new = |buffer| !slots.holds(buffer);
        let mut recording = passes::drop_dead(recording, is_new);
        let reads = passes::reads(&recording, is_new);
        // Whoever looks at every result wants to see them all.
        let fuses = self.fuses && self.watch.is_none();
        if fuses {
            recording = passes::finish(recording, &reads);
        }
        if let Some(traits) = backend.traits() {
            recording = passes::lower(recording, traits, kept, || {
                *temporaries += 1;
                *temporaries
            });
        }
        if fuses {
            recording = passes::fuse(passes::hoist(recording), &reads);
            recording = backend.group(passes::settle(recording, is_new));
        }
        let outcome = self.place_and_execute(&recording);
        if let Err(error) = &outcome {
            // Nobody holds what was found; some of it would have been in this one.
            recording.commands.extend(self.kept.forget_lasting().map(|buffer| Command::Free { buffer }));
            let slots = self.slots.abandon(self.lost.add(&recording, error));
            self.backend.recover(&recording, &slots);
        }
        outcome
    }

    fn place_and_execute(&mut self, recording: &Recording) -> Result<Vec<Reading>> {
        let Executor { backend, slots, watch, profile, encoding, .. } = self;
        backend.check_sizes(recording)?;
        let placement = passes::place(recording, slots, |buffer| backend.bytes(buffer));
        if let Some(limit) = self.memory_limit.filter(|limit| placement.most_in_use() > *limit) {
            let reason = format!("{} bytes are needed at once, and its limit is {limit}", placement.most_in_use());
            return Err(Error::OutOfMemory { device: backend.name(), in_use: slots.in_use(), reason });
        }
        if self.dry {
            backend.ask_compiler(recording)?;
            if let Some(profile) = profile {
                let dispatched = recording.commands.iter().filter(|command| command.is_dispatched());
                profile.spans.extend(dispatched.map(|command| Span::of(command, "")));
            }
            let zeros = |command: &Command| match command {
                Command::Download { from } => Some(Reading::here(Ok(HostBuffer::zeros(from)))),
                _ => None,
            };
            return Ok(recording.commands.iter().filter_map(zeros).collect());
        }
        let run =
            Run { recording, placement: &placement, in_use: slots.in_use(), watch: watch.as_mut(), profile: profile.as_mut() };
        let begun = Instant::now();
        let downloads = backend.execute(run)?;
        *encoding += begun.elapsed();
        Ok(downloads)
    }
}

/// One recording on its way through a backend.
pub(crate) struct Run<'a> {
    pub recording: &'a Recording,
    pub placement: &'a Placement,
    /// Bytes that live buffers hold after it.
    pub in_use: u64,
    pub watch: Option<&'a mut Watch>,
    pub profile: Option<&'a mut Profile>,
}

impl Run<'_> {
    /// Where the placement put a buffer.
    pub fn place(&self, buffer: &BufferRef) -> Place {
        self.placement.place(buffer)
    }
}
