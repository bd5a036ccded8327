//! Gives every buffer a slot of memory for as long as it lives, so that tensors that are never alive together share one.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::recording::{BufferRef, Command, Recording};

/// Where the buffers of one recording lie: a slot's index by buffer.
pub type Placement = FxHashMap<u64, usize>;

/// The slots of one device: which there are, which are free, and which buffer lies where.
#[derive(Default, Debug)]
pub struct Slots {
    /// Bytes of each slot; 0 where there is none any more.
    sizes: Vec<usize>,
    /// Free slots by size, the most recently freed last.
    free: BTreeMap<usize, Vec<usize>>,
    /// When each slot was freed, in recordings placed so far.
    freed_at: FxHashMap<usize, u64>,
    unused: Vec<usize>,
    live: FxHashMap<u64, Live>,
    recordings: u64,
    in_use: Watermark,
    of_tensors: Watermark,
}

/// A buffer that has a slot.
#[derive(Debug)]
struct Live {
    slot: usize,
    bytes: usize,
}

/// A number of bytes, and the most that it was.
#[derive(Default, Debug)]
struct Watermark {
    now: u64,
    peak: u64,
}

impl Watermark {
    fn add(&mut self, bytes: usize) {
        self.now += bytes as u64;
        self.peak = self.peak.max(self.now);
    }

    fn remove(&mut self, bytes: usize) {
        self.now -= bytes as u64;
    }
}

impl Slots {
    /// Bytes of the slots that hold a live buffer.
    pub fn in_use(&self) -> u64 {
        self.in_use.now
    }

    /// The most bytes in use since [`reset_peak`](Self::reset_peak).
    pub fn peak(&self) -> u64 {
        self.in_use.peak
    }

    /// The most bytes that live buffers asked for since then.
    pub fn peak_live(&self) -> u64 {
        self.of_tensors.peak
    }

    /// Bytes of all slots, free ones too.
    pub fn reserved(&self) -> u64 {
        self.sizes.iter().map(|&size| size as u64).sum()
    }

    /// Starts measuring the peak anew.
    pub fn reset_peak(&mut self) {
        for watermark in [&mut self.in_use, &mut self.of_tensors] {
            watermark.peak = watermark.now;
        }
    }

    /// Bytes of a slot.
    pub fn size(&self, slot: usize) -> usize {
        self.sizes[slot]
    }

    /// Whether the buffer was placed by an earlier recording and not freed since.
    pub fn holds(&self, buffer: u64) -> bool {
        self.live.contains_key(&buffer)
    }

    /// The free slots that no recording has used for a while; they are no longer slots afterwards.
    pub fn take_idle(&mut self) -> Vec<usize> {
        /// Long enough for a step with another sequence length to come round again.
        const RECORDINGS: u64 = 64;
        let now = self.recordings;
        let mut idle: Vec<usize> =
            self.freed_at.iter().filter(|(_, at)| now - **at > RECORDINGS).map(|(slot, _)| *slot).collect();
        idle.sort_unstable();
        for slot in &idle {
            self.freed_at.remove(slot);
            if let Some(same_size) = self.free.get_mut(&self.sizes[*slot]) {
                same_size.retain(|other| other != slot);
            }
            self.sizes[*slot] = 0;
        }
        self.free.retain(|_, slots| !slots.is_empty());
        self.unused.extend(&idle);
        idle
    }

    fn acquire(&mut self, bytes: usize) -> usize {
        // A slot up to a quarter too large is taken rather than a new one made.
        let fitting = self.free.range(bytes..=bytes + bytes / 4).next().map(|(size, _)| *size);
        let slot = match fitting {
            Some(size) => {
                let same_size = self.free.get_mut(&size).expect("a size in the range has slots");
                let slot = same_size.pop().expect("an empty list is removed");
                if same_size.is_empty() {
                    self.free.remove(&size);
                }
                self.freed_at.remove(&slot);
                slot
            }
            None => match self.unused.pop() {
                Some(slot) => {
                    self.sizes[slot] = bytes;
                    slot
                }
                None => {
                    self.sizes.push(bytes);
                    self.sizes.len() - 1
                }
            },
        };
        self.in_use.add(self.sizes[slot]);
        self.of_tensors.add(bytes);
        slot
    }

    fn release(&mut self, slot: usize, bytes: usize) {
        let size = self.sizes[slot];
        self.in_use.remove(size);
        self.of_tensors.remove(bytes);
        self.free.entry(size).or_default().push(slot);
        self.freed_at.insert(slot, self.recordings);
    }
}

/// Places every buffer of the recording. A buffer takes a slot when it is first written and gives it back when it is freed.
/// `bytes` says how large a slot a buffer needs.
pub fn place(recording: &Recording, slots: &mut Slots, bytes: impl Fn(&BufferRef) -> usize) -> Placement {
    slots.recordings += 1;
    let mut placement = Placement::with_capacity_and_hasher(recording.commands.len(), Default::default());
    for command in &recording.commands {
        for (_, buffer) in command.accesses() {
            let slot = match slots.live.get(&buffer.id) {
                Some(live) => live.slot,
                None => {
                    let bytes = bytes(&buffer);
                    let slot = slots.acquire(bytes);
                    slots.live.insert(buffer.id, Live { slot, bytes });
                    slot
                }
            };
            placement.insert(buffer.id, slot);
        }
        if let Command::Free { buffer } = command
            && let Some(Live { slot, bytes }) = slots.live.remove(&buffer.id)
        {
            slots.release(slot, bytes);
        }
    }
    placement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, ops};

    #[test]
    fn a_chain_of_any_length_needs_two_slots_and_running_it_again_needs_no_more() {
        let device = Device::cpu();
        let mut x = device.tensor(&[0.5; 100], [100]);
        for _ in 0..20 {
            x = ops::exp(&x);
        }
        let mut slots = Slots::default();
        place(&device.recorded(), &mut slots, |buffer| buffer.elements * 4);
        assert_eq!(slots.reserved(), 2 * 400);
        assert_eq!(slots.peak(), 2 * 400);
        assert_eq!(slots.in_use(), 400);
    }

    #[test]
    fn a_slot_much_too_large_is_not_taken_and_an_idle_one_is_given_up() {
        let mut slots = Slots::default();
        let large = slots.acquire(1000);
        slots.release(large, 1000);
        assert_ne!(slots.acquire(100), large);
        assert_eq!(slots.acquire(900), large);
        assert_eq!([slots.peak(), slots.peak_live()], [1100, 1000]);
        slots.release(large, 900);
        slots.recordings += 65;
        assert_eq!(slots.take_idle(), [large]);
        assert_eq!(slots.reserved(), 100);
    }
}
