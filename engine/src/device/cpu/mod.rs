//! The CPU backend: runs each kernel's Rust twin, on all cores.

mod fused;

use std::ops::Range;
use std::time::Instant;

use bytemuck::{Pod, Zeroable};

use super::{Config, HostBuffer, Run, Span};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{Access, AnyKernel, Io};
use crate::real::Real;
use crate::recording::{BufferRef, Command, Payload};

/// A cache line: what memory is taken in, so that vectors are aligned.
#[derive(Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Stands on both sides of a tensor in guarded memory.
const SENTINEL: u8 = 0xA5;

/// What a slot has: memory of its own, or bytes that were uploaded and are only read, which stay where they are.
enum Memory {
    Own(Vec<Line>),
    Lent(Payload),
}

impl Default for Memory {
    fn default() -> Self {
        Memory::Own(Vec::new())
    }
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Memory::Own(lines) => bytemuck::cast_slice(lines),
            Memory::Lent(payload) => (**payload).as_ref(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Own(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Lent(_) => unreachable!("what is written has memory of its own"),
        }
    }
}

/// Uploads of fewer bytes are copied: they are made anew all the time, and their slots used again.
const LENT: usize = 64 * 1024;

/// The CPU, computing in `R`.
pub(crate) struct Cpu<R> {
    memory: Vec<Memory>,
    guards: bool,
    real: std::marker::PhantomData<R>,
}

impl<R: RunTwin> Cpu<R> {
    pub fn new(config: &Config) -> Self {
        Cpu { memory: Vec::new(), guards: config.guards, real: std::marker::PhantomData }
    }

    pub fn bytes(&self, buffer: &BufferRef) -> usize {
        (buffer.whole * buffer.dtype.size_in::<R>()).next_multiple_of(64).max(64)
    }

    /// Runs the commands in order. On a thread of the pool, so that a twin's first parallel loop need not wake it.
    pub fn execute(&mut self, run: Run<'_>) -> Result<Vec<HostBuffer>> {
        rayon::scope(|_| self.execute_here(run))
    }

    pub fn release(&mut self, idle: &[usize]) {
        for &slot in idle {
            self.memory[slot] = Memory::default();
        }
    }

    fn execute_here(&mut self, mut run: Run<'_>) -> Result<Vec<HostBuffer>> {
        let mut downloads = Vec::new();
        for command in &run.recording.commands {
            match command {
                Command::Upload { to, data } => self.upload(&run, to, data)?,
                Command::Dispatch { kernel, params, .. } => {
                    self.dispatch(&mut run, command, |io| R::run_twin(kernel, bytemuck::cast_slice(params), io))?;
                }
                Command::Fused { chain, buffers } => {
                    self.dispatch(&mut run, command, |io| fused::run(chain, io, buffers.len()))?;
                }
                Command::Download { from } => downloads.push(self.download(&run, from)),
                Command::Free { .. } => {}
            }
        }
        Ok(downloads)
    }

    /// The memory of a slot, taken from the system when it is first needed.
    fn prepare(&mut self, run: &Run<'_>, buffer: &BufferRef) -> Result<usize> {
        let slot = self.slot(run, buffer);
        let lines = run.slots.size(slot) / 64 + 2 * self.guards as usize;
        if !matches!(&self.memory[slot], Memory::Own(own) if own.len() == lines) {
            let zeroed = bytemuck::try_zeroed_vec(lines).map_err(|()| Error::OutOfMemory {
                device: "the CPU".into(),
                in_use: run.slots.in_use(),
                reason: format!("the system refused {} bytes", lines * 64),
            })?;
            self.memory[slot] = Memory::Own(zeroed);
        }
        if self.guards {
            let whole = self.whole(buffer);
            let bytes = self.memory[slot].bytes_mut();
            bytes[..whole.start].fill(SENTINEL);
            bytes[whole.end..].fill(SENTINEL);
        }
        Ok(slot)
    }

    /// The memory of a slot that is about to be updated, no longer lent.
    fn own(&mut self, run: &Run<'_>, buffer: &BufferRef) -> Result<usize> {
        let slot = run.slot(buffer);
        if let Memory::Lent(payload) = &self.memory[slot] {
            let payload = payload.clone();
            self.prepare(run, buffer)?;
            self.memory[slot].bytes_mut()[..(*payload).as_ref().len()].copy_from_slice((*payload).as_ref());
        }
        Ok(slot)
    }

    fn slot(&mut self, run: &Run<'_>, buffer: &BufferRef) -> usize {
        let slot = run.slot(buffer);
        if self.memory.len() <= slot {
            self.memory.resize_with(slot + 1, Memory::default);
        }
        slot
    }

    /// The bytes of a slot between the sentinels.
    fn whole(&self, buffer: &BufferRef) -> Range<usize> {
        let start = 64 * self.guards as usize;
        start..start + buffer.whole * buffer.dtype.size_in::<R>()
    }

    /// Those that a kernel is given.
    fn range(&self, buffer: &BufferRef) -> Range<usize> {
        let size = buffer.dtype.size_in::<R>();
        let start = self.whole(buffer).start + buffer.start * size;
        start..start + buffer.elements * size
    }

    fn bytes_in<'a>(&self, memory: &'a Memory, buffer: &BufferRef) -> &'a [u8] {
        &memory.bytes()[self.range(buffer)]
    }

    fn upload(&mut self, run: &Run<'_>, to: &BufferRef, payload: &Payload) -> Result<()> {
        let data: &[u8] = (**payload).as_ref();
        let is_as_stored = to.dtype != DType::F32 || size_of::<R>() == 4;
        let is_aligned = data.as_ptr().align_offset(to.dtype.size()) == 0;
        if data.len() >= LENT && is_as_stored && is_aligned && !to.is_part() && !self.guards {
            let slot = self.slot(run, to);
            self.memory[slot] = Memory::Lent(payload.clone());
            return Ok(());
        }
        let slot = self.prepare(run, to)?;
        let range = self.range(to);
        let target = &mut self.memory[slot].bytes_mut()[range];
        if to.dtype == DType::F32 && size_of::<R>() != 4 {
            for (value, bytes) in bytemuck::cast_slice_mut::<u8, R>(target).iter_mut().zip(data.chunks_exact(4)) {
                *value = R::from_f32(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            }
        } else {
            target.copy_from_slice(data);
        }
        Ok(())
    }

    fn dispatch(&mut self, run: &mut Run<'_>, command: &Command, work: impl FnOnce(&mut Io<R>)) -> Result<()> {
        let name = command.name();
        // Slots that are written leave the list while the kernel runs, so that inputs can be borrowed from it.
        let mut written: Vec<(usize, Memory)> = Vec::with_capacity(2);
        for (access, buffer) in command.accesses().filter(|(access, _)| *access != Access::Read) {
            if written.iter().all(|(slot, _)| *slot != run.slot(&buffer)) {
                let slot = if access == Access::Write { self.prepare(run, &buffer)? } else { self.own(run, &buffer)? };
                written.push((slot, std::mem::take(&mut self.memory[slot])));
            }
        }
        let mut outputs = self.outputs(run, command, &mut written);
        let mut io = Io::new(name);
        for (binding, (access, buffer)) in command.accesses().enumerate() {
            match access {
                Access::Read => io.input(buffer.dtype, self.bytes_in(&self.memory[run.slot(&buffer)], &buffer)),
                Access::Write | Access::Update => io.output(buffer.dtype, outputs[binding].take().expect("once a binding")),
            }
        }
        let begun = run.profile.is_some().then(Instant::now);
        work(&mut io);
        if let (Some(profile), Some(begun)) = (&mut run.profile, begun) {
            profile.add_host(begun, Span::of(command, "twin"));
        }
        drop(io);
        for (slot, memory) in written {
            self.memory[slot] = memory;
        }
        for buffer in command.writes() {
            let memory = &self.memory[run.slot(&buffer)];
            if let Some(watch) = &mut run.watch
                && buffer.dtype == DType::F32
            {
                let results: &[R] = bytemuck::cast_slice(self.bytes_in(memory, &buffer));
                watch.look(name, results.iter().map(|value| value.to_f32()));
            }
            if self.guards {
                self.check_guards(name, memory, &buffer)?;
            }
        }
        Ok(())
    }

    /// The bytes behind each binding of a command that writes, out of the slots that it writes to.
    fn outputs<'a>(&self, run: &Run<'_>, command: &Command, written: &'a mut [(usize, Memory)]) -> Vec<Option<&'a mut [u8]>> {
        let mut outputs: Vec<Option<&mut [u8]>> = command.accesses().map(|_| None).collect();
        for (slot, memory) in written {
            let writes = command.accesses().enumerate().filter(|(_, (access, _))| *access != Access::Read);
            let mut ranges: Vec<(usize, Range<usize>)> = writes
                .filter(|(_, (_, buffer))| run.slot(buffer) == *slot)
                .map(|(binding, (_, buffer))| (binding, self.range(&buffer)))
                .collect();
            // Parts of one buffer follow each other.
            ranges.sort_unstable_by_key(|(_, range)| range.start);
            let (mut rest, mut before) = (memory.bytes_mut(), 0);
            for (binding, range) in ranges {
                let (_, from_start) = rest.split_at_mut(range.start - before);
                let (part, behind) = from_start.split_at_mut(range.len());
                (outputs[binding], rest, before) = (Some(part), behind, range.end);
            }
        }
        outputs
    }

    fn check_guards(&self, name: &str, memory: &Memory, buffer: &BufferRef) -> Result<()> {
        let (bytes, whole) = (memory.bytes(), self.whole(buffer));
        let intact = bytes[..whole.start].iter().chain(&bytes[whole.end..]).all(|byte| *byte == SENTINEL);
        if intact {
            return Ok(());
        }
        Err(Error::Rejected { device: "the CPU".into(), what: name.into(), reason: "it wrote outside its output".into() })
    }

    fn download(&self, run: &Run<'_>, from: &BufferRef) -> HostBuffer {
        let bytes = self.bytes_in(&self.memory[run.slot(from)], from);
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

    use crate::optim::{Sgd, SgdConfig};
    use crate::{DType, Device, ops};

    #[test]
    fn what_is_lent_is_read_in_place_and_copied_before_it_is_updated() {
        let device = Device::cpu();
        let bytes = Arc::new(bytemuck::cast_slice::<f32, u8>(&vec![1.0; super::LENT]).to_vec());
        let x = device.tensor_of_bytes(bytes.clone(), DType::F32, [super::LENT]);
        assert_eq!(ops::sum(&x).item().unwrap(), super::LENT as f32);
        assert_eq!(Arc::strong_count(&bytes), 2, "one here, one under the tensor");
        let gradient = device.tensor(&vec![0.5; super::LENT], [super::LENT]);
        Sgd::new(SgdConfig::default(), &[&x]).step(&[&x], &[&gradient], 1.0, None);
        assert!(x.to_vec().unwrap().iter().all(|&value| value == 0.5));
        assert_eq!(Arc::strong_count(&bytes), 1);
        assert!(bytes.chunks_exact(4).all(|element| element == 1f32.to_le_bytes()), "the lender's bytes are as they were");
    }
}
