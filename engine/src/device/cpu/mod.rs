//! The CPU backend: runs each kernel's Rust twin, on all cores.

mod fused;
mod memory;

use std::ops::Range;
use std::time::Instant;

use rustc_hash::FxHashSet;

use super::{Config, HostBuffer, POISON, Reading, Run, Span};
use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{Access, AnyKernel, Io};
use crate::passes::Place;
use crate::real::Real;
use crate::recording::{Command, Payload, Recording};
use memory::{Binding, Bytes, Memory};

/// What stands before and behind a tensor in guarded memory, in bytes.
const ZONE: usize = 64;

/// Buffers of so many bytes do not end where the next begins. Sizes are often multiples of a page, and what an update walks
/// through side by side (AdamW's parameter, gradient and two moments) would lie at the same offsets of its pages: each load would
/// then wait for a store that shares its low twelve bits, and all would compete for the same lines of the cache.
const LARGE: usize = 64 * 1024;

/// A quarter of a page and a line: four buffers that follow each other lie apart within their pages.
const STAGGER: usize = 1024 + 64;

/// Uploads of fewer bytes are copied: they are made anew all the time.
const LENT: usize = 64 * 1024;

/// The CPU, computing in `R`.
pub(crate) struct Cpu<R> {
    memory: Memory,
    guards: bool,
    real: std::marker::PhantomData<R>,
}

impl<R: RunTwin> Cpu<R> {
    pub fn new(config: &Config) -> Self {
        Cpu { memory: Memory::default(), guards: config.guards, real: std::marker::PhantomData }
    }

    pub fn bytes(&self, buffer: &BufferRef) -> usize {
        // Whole cache lines, so that vectors are aligned.
        let bytes = (buffer.whole * buffer.dtype.size_in::<R>()).next_multiple_of(64).max(64) + 2 * self.zone();
        if bytes < LARGE { bytes } else { bytes + STAGGER }
    }

    /// Runs the commands in order. On a thread of the pool, so that a twin's first parallel loop need not wake it.
    pub fn execute(&mut self, run: Run<'_>) -> Result<Vec<Reading>> {
        rayon::scope(|_| self.execute_here(run))
    }

    /// Comes back to order after a recording that failed: of its slots only these are still there.
    pub fn recover(&mut self, recording: &Recording, slots: &FxHashSet<usize>) {
        self.memory.keep(slots);
        for command in &recording.commands {
            if let Command::Free { buffer } = command {
                self.memory.give_back(buffer);
            }
        }
    }

    fn execute_here(&mut self, mut run: Run<'_>) -> Result<Vec<Reading>> {
        let mut downloads = Vec::new();
        let (recording, placement) = (run.recording, run.placement);
        for (at, command) in recording.commands.iter().enumerate() {
            self.memory.change(placement.changes_before(at), run.in_use)?;
            match command {
                Command::Upload { to, data } => self.upload(&run, to, data),
                Command::Dispatch { kernel, params, .. } => {
                    self.dispatch(&mut run, command, |io| R::run_twin(kernel, bytemuck::cast_slice(params), io))?;
                }
                Command::Fused { chain, buffers } => {
                    self.dispatch(&mut run, command, |io| fused::run(chain, io, buffers.len()))?;
                }
                Command::Group { .. } => unreachable!("dispatches are grouped for GPUs alone"),
                Command::Download { from } => downloads.push(Reading::here(Ok(self.download(&run, from)))),
                Command::Free { buffer } => self.memory.give_back(buffer),
                Command::Refused { .. } => {}
            }
        }
        Ok(downloads)
    }

    fn zone(&self) -> usize {
        if self.guards { ZONE } else { 0 }
    }

    /// The bytes of a buffer's place that a kernel is given.
    fn range(&self, buffer: &BufferRef) -> Range<usize> {
        let size = buffer.dtype.size_in::<R>();
        let start = self.zone() + buffer.start * size;
        start..start + buffer.elements * size
    }

    /// What a command does with its buffers, in the order of its bindings.
    fn bindings(&self, run: &Run<'_>, command: &Command) -> Vec<Binding> {
        let binding = |(access, buffer): (Access, BufferRef)| Binding {
            buffer: buffer.id,
            place: run.place(&buffer),
            range: self.range(&buffer),
            writes: access != Access::Read,
        };
        command.accesses().map(binding).collect()
    }

    fn bytes_of(&self, run: &Run<'_>, buffer: &BufferRef) -> &[u8] {
        &self.memory.bytes(buffer, run.place(buffer))[self.range(buffer)]
    }

    /// Makes a buffer ready to be written: in memory of its own, which is poisoned, as is what lies around it, if there are guards.
    fn prepare(&mut self, run: &Run<'_>, buffer: &BufferRef, access: Access) {
        let place = run.place(buffer);
        if access == Access::Write && !buffer.is_part() {
            self.memory.give_back(buffer);
        } else {
            self.memory.own(buffer, place);
        }
        if self.guards && access == Access::Write {
            let fresh = self.range(buffer);
            let [before, after] = self.zones(buffer, place);
            let bytes = self.memory.bytes_mut(place);
            [before, fresh, after].into_iter().for_each(|range| bytes[range].fill(POISON));
        }
    }

    /// What lies before and behind the whole buffer, of the bytes of its place.
    fn zones(&self, buffer: &BufferRef, place: Place) -> [Range<usize>; 2] {
        let after = ZONE + buffer.whole * buffer.dtype.size_in::<R>();
        [0..ZONE, after..place.bytes]
    }

    fn upload(&mut self, run: &Run<'_>, to: &BufferRef, payload: &Payload) {
        let data: &[u8] = (**payload).as_ref();
        let is_as_stored = to.dtype != DType::F32 || size_of::<R>() == 4;
        let is_aligned = data.as_ptr().align_offset(to.dtype.size()) == 0;
        if data.len() >= LENT && is_as_stored && is_aligned && !to.is_part() && !self.guards {
            return self.memory.lend(to, payload);
        }
        self.prepare(run, to, Access::Write);
        let range = self.range(to);
        let target = &mut self.memory.bytes_mut(run.place(to))[range];
        if is_as_stored {
            return target.copy_from_slice(data);
        }
        for (value, bytes) in bytemuck::cast_slice_mut::<u8, R>(target).iter_mut().zip(data.chunks_exact(4)) {
            *value = R::from_f32(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
    }

    fn dispatch(&mut self, run: &mut Run<'_>, command: &Command, work: impl FnOnce(&mut Io<R>)) -> Result<()> {
        let name = command.name();
        for (access, buffer) in command.accesses().filter(|(access, _)| *access != Access::Read) {
            self.prepare(run, &buffer, access);
        }
        let bindings = self.bindings(run, command);
        let mut io = Io::new(name);
        for ((_, buffer), bytes) in command.accesses().zip(self.memory.cut(&bindings)) {
            match bytes {
                Bytes::Read(bytes) => io.input(buffer.dtype, bytes),
                Bytes::Written(bytes) => io.output(buffer.dtype, bytes),
            }
        }
        let begun = run.profile.is_some().then(Instant::now);
        work(&mut io);
        if let (Some(profile), Some(begun)) = (&mut run.profile, begun) {
            profile.add_host(begun, Span::of(command, "twin"));
        }
        drop(io);
        for buffer in command.writes() {
            if run.watch.is_some() && buffer.dtype == DType::F32 {
                let results: &[R] = bytemuck::cast_slice(self.bytes_of(run, &buffer));
                if let Some(watch) = &mut run.watch {
                    watch.look(name, results.iter().map(|value| value.to_f32()));
                }
            }
            if self.guards {
                self.check_guards(run, name, &buffer)?;
            }
        }
        Ok(())
    }

    fn check_guards(&self, run: &Run<'_>, name: &str, buffer: &BufferRef) -> Result<()> {
        let place = run.place(buffer);
        let bytes = self.memory.bytes(buffer, place);
        if self.zones(buffer, place).into_iter().all(|zone| bytes[zone].iter().all(|byte| *byte == POISON)) {
            return Ok(());
        }
        Err(Error::Rejected { device: "the CPU".into(), what: name.into(), reason: "it wrote outside its output".into() })
    }

    fn download(&self, run: &Run<'_>, from: &BufferRef) -> HostBuffer {
        let bytes = self.bytes_of(run, from);
        match from.dtype {
            DType::F32 => R::host(bytemuck::cast_slice(bytes)),
            DType::F16 => HostBuffer::F16(bytemuck::cast_slice(bytes).to_vec()),
            DType::BF16 => HostBuffer::BF16(bytemuck::cast_slice(bytes).to_vec()),
            DType::U32 => HostBuffer::U32(bytemuck::cast_slice(bytes).to_vec()),
        }
    }
}

/// Which of a kernel's twins runs.
pub(crate) trait RunTwin: Real {
    fn run_twin(kernel: &AnyKernel, params: &[u8], io: &mut Io<Self>);
    fn host(values: &[Self]) -> HostBuffer;
}

impl RunTwin for f32 {
    fn run_twin(kernel: &AnyKernel, params: &[u8], io: &mut Io<f32>) {
        (kernel.run_f32)(params, io);
    }
    fn host(values: &[f32]) -> HostBuffer {
        HostBuffer::F32(values.to_vec())
    }
}

impl RunTwin for f64 {
    fn run_twin(kernel: &AnyKernel, params: &[u8], io: &mut Io<f64>) {
        (kernel.run_f64)(params, io);
    }
    fn host(values: &[f64]) -> HostBuffer {
        HostBuffer::F64(values.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::optim::{Parameter, Parameters, Sgd};
    use crate::{DType, Device, ops};

    #[test]
    fn what_is_lent_is_read_in_place_and_copied_before_it_is_updated() {
        let device = Device::cpu();
        let bytes = Arc::new(bytemuck::cast_slice::<f32, u8>(&vec![1.0; super::LENT]).to_vec());
        let x = device.tensor_of_bytes(bytes.clone(), DType::F32, [super::LENT]);
        assert_eq!(ops::sum(&x).item().unwrap(), super::LENT as f32);
        assert_eq!(Arc::strong_count(&bytes), 2, "one here, one under the tensor");
        let gradient = device.tensor(&vec![0.5; super::LENT], [super::LENT]);
        let parameters = Parameters::gather([Parameter { name: "x".into(), tensor: x.clone(), weight_decay: 0.0, rate: 1.0 }]);
        Sgd::new(0.0, &parameters).step(&parameters, &parameters.joined(&[&gradient]), 1.0, None);
        assert!(x.to_vec().unwrap().iter().all(|&value| value == 0.5));
        assert_eq!(Arc::strong_count(&bytes), 1);
        assert!(bytes.chunks_exact(4).all(|element| element == 1f32.to_le_bytes()), "the lender's bytes are as they were");
    }
}
