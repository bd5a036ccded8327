//! The buffers behind the slots, and the way in and out of them.

use std::ops::Range;

use rustc_hash::FxHashSet;

use super::driver::Driver;
use super::encoding::Encoding;
use super::mapping::Mapping;
use crate::buffer::BufferRef;
use crate::device::{POISON, Run, bytes_of};
use crate::error::Result;
use crate::passes::Change;

/// Bytes that go up at a time: what a large tensor costs in host memory beside its own.
const CHUNK: u64 = 16 << 20;
/// Bytes that may be on their way up before the host waits for the device.
const MOST_IN_FLIGHT: u64 = 128 << 20;
/// Bytes of poison that are copied at a time.
const POISON_BYTES: u64 = 1 << 20;

/// One buffer a slot. In guarded memory a tensor lies between two zones of poison.
pub(super) struct Memory {
    slots: Vec<Option<wgpu::Buffer>>,
    /// Bytes of a zone; 0 in memory without guards.
    zone: u64,
    poison: Option<wgpu::Buffer>,
    in_flight: u64,
}

/// Where one tensor lies.
pub(super) struct Span<'a> {
    pub slot: usize,
    /// Bytes that a kernel is given.
    pub bytes: u64,
    /// Where they begin.
    pub offset: u64,
    buffer: &'a wgpu::Buffer,
}

impl Span<'_> {
    pub fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.buffer,
            offset: self.offset,
            size: wgpu::BufferSize::new(self.bytes),
        })
    }
}

impl Memory {
    pub fn new(driver: &Driver, guards: bool) -> Result<Memory> {
        let zone = u64::from(driver.limits.min_storage_buffer_offset_alignment).max(256);
        let poison = if guards {
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let poison = driver.buffer(POISON_BYTES, usage, false)?;
            driver.queue.write_buffer(&poison, 0, &vec![POISON; POISON_BYTES as usize]);
            Some(poison)
        } else {
            None
        };
        Ok(Memory { slots: Vec::new(), zone: if guards { zone } else { 0 }, poison, in_flight: 0 })
    }

    /// Makes and drops the buffers of slots, once what is encoded no longer needs those that go.
    pub fn change(&mut self, driver: &Driver, encoding: &mut Encoding, changes: &[Change]) -> Result<()> {
        for change in changes {
            if let Change::Drop { slot } = *change {
                self.slots[slot] = None;
            }
        }
        if changes.iter().any(|change| matches!(change, Change::Drop { .. })) {
            encoding.submit(driver);
            driver.wait()?;
            self.in_flight = 0;
        }
        for change in changes {
            if let Change::Make { slot, bytes } = *change {
                if self.slots.len() <= slot {
                    self.slots.resize(slot + 1, None);
                }
                let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
                self.slots[slot] = Some(driver.buffer(bytes as u64 + 2 * self.zone, usage, false)?);
            }
        }
        Ok(())
    }

    /// Drops the buffers of all slots but these.
    pub fn keep(&mut self, kept: &FxHashSet<usize>) {
        let others = self.slots.iter_mut().enumerate().filter(|(slot, _)| !kept.contains(slot));
        others.for_each(|(_, buffer)| *buffer = None);
        self.in_flight = 0;
    }

    /// Poisons a tensor that is about to be written whole, and what lies around it.
    pub fn prepare(&mut self, driver: &Driver, encoding: &mut Encoding, run: &Run<'_>, tensor: &BufferRef) {
        let Some(poison) = &self.poison else { return };
        let (start, [before, after]) = (self.start(tensor), self.zones(tensor));
        let fresh = start..start + bytes_of(tensor.elements, tensor.dtype) as u64;
        let buffer = self.buffer(run.place(tensor).slot);
        for range in [before, fresh, after] {
            for start in range.clone().step_by(POISON_BYTES as usize) {
                let bytes = POISON_BYTES.min(range.end - start);
                encoding.between(driver).copy_buffer_to_buffer(poison, 0, buffer, start, bytes);
            }
        }
    }

    /// What a kernel is given of a tensor. Guarded, that takes in the zone behind it: drivers and checked shaders would
    /// otherwise drop the very writes that it is there to catch.
    pub fn span(&self, run: &Run<'_>, tensor: &BufferRef) -> Span<'_> {
        let slot = run.place(tensor).slot;
        let bytes = bytes_of(tensor.elements, tensor.dtype) as u64 + self.zone;
        Span { slot, bytes, buffer: self.buffer(slot), offset: self.start(tensor) }
    }

    /// Fills a prepared tensor.
    pub fn upload(&mut self, driver: &Driver, encoding: &mut Encoding, run: &Run<'_>, to: &BufferRef, data: &[u8]) -> Result<()> {
        let slot = run.place(to).slot;
        for (index, chunk) in data.chunks(CHUNK as usize).enumerate() {
            let whole_words = (chunk.len() as u64).next_multiple_of(4);
            let staging = driver.buffer(whole_words, wgpu::BufferUsages::COPY_SRC, true)?;
            let mapped = staging.get_mapped_range_mut(..);
            mapped.map_err(|error| driver.rejected("an upload", error.to_string()))?.slice(..chunk.len()).copy_from_slice(chunk);
            staging.unmap();
            let offset = self.start(to) + index as u64 * CHUNK;
            encoding.between(driver).copy_buffer_to_buffer(&staging, 0, self.buffer(slot), offset, whole_words);
            self.in_flight += whole_words;
            if self.in_flight >= MOST_IN_FLIGHT {
                encoding.submit(driver);
                driver.wait()?;
                self.in_flight = 0;
            }
        }
        Ok(())
    }

    /// Submits what is encoded and a copy of a tensor behind it, which is on its way to the host then.
    pub fn download(&self, driver: &Driver, encoding: &mut Encoding, run: &Run<'_>, from: &BufferRef) -> Result<Mapping> {
        let (start, bytes) = (self.start(from), from.elements * from.dtype.size());
        self.copied(driver, encoding, run.place(from).slot, start..start + bytes as u64)
    }

    /// Whether the zones round a tensor are as they were.
    pub fn intact(&self, driver: &Driver, encoding: &mut Encoding, run: &Run<'_>, tensor: &BufferRef) -> Result<bool> {
        let is_poison = |bytes: &[u8]| bytes.iter().all(|byte| *byte == POISON);
        let slot = run.place(tensor).slot;
        let mut zones = self.zones(tensor).into_iter();
        zones.try_fold(true, |intact, zone| Ok(intact & self.copied(driver, encoding, slot, zone)?.wait(is_poison)?))
    }

    /// Bytes of a slot on their way to the host, as they are behind what is encoded.
    fn copied(&self, driver: &Driver, encoding: &mut Encoding, slot: usize, range: Range<u64>) -> Result<Mapping> {
        let bytes = range.end - range.start;
        let words = bytes.next_multiple_of(4);
        let copy = driver.buffer(words, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false)?;
        encoding.between(driver).copy_buffer_to_buffer(self.buffer(slot), range.start, &copy, 0, words);
        encoding.submit(driver);
        Ok(Mapping::begin(driver, copy, bytes as usize))
    }

    /// The zones before and behind the whole buffer of a tensor.
    fn zones(&self, tensor: &BufferRef) -> [Range<u64>; 2] {
        let after = self.zone + bytes_of(tensor.whole, tensor.dtype) as u64;
        [0..self.zone, after..after + self.zone]
    }

    /// Where a tensor's first byte lies in its slot.
    fn start(&self, tensor: &BufferRef) -> u64 {
        self.zone + (tensor.start * tensor.dtype.size()) as u64
    }

    fn buffer(&self, slot: usize) -> &wgpu::Buffer {
        self.slots[slot].as_ref().expect("a tensor is written before it is read")
    }
}
