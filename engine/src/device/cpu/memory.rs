//! The memory behind the slots, and the bytes that commands are given of it.

use std::ops::Range;

use memmap2::MmapMut;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::buffer::BufferRef;
use crate::error::{Error, Result};
use crate::passes::{Change, Place};
use crate::recording::Payload;

/// A map a slot: the system gives it page by page as it is written, and has it back at once when it is dropped. An allocator
/// would keep it for itself.
#[derive(Default)]
pub(super) struct Memory {
    slots: Vec<Option<MmapMut>>,
    /// What was uploaded and is only read stays where it is, by buffer.
    lent: FxHashMap<u64, Payload>,
}

/// How one binding of a command uses memory.
pub(super) struct Binding {
    pub buffer: u64,
    pub place: Place,
    /// Bytes of the place.
    pub range: Range<usize>,
    pub writes: bool,
}

/// What one binding of a command is given.
pub(super) enum Bytes<'a> {
    Read(&'a [u8]),
    Written(&'a mut [u8]),
}

impl Memory {
    /// Makes and drops slots.
    pub fn change(&mut self, changes: &[Change], in_use: u64) -> Result<()> {
        for change in changes {
            match *change {
                Change::Drop { slot } => self.slots[slot] = None,
                Change::Make { slot, bytes } => {
                    if self.slots.len() <= slot {
                        self.slots.resize_with(slot + 1, || None);
                    }
                    self.slots[slot] = Some(map(bytes, in_use)?);
                }
            }
        }
        Ok(())
    }

    /// Drops all slots but these.
    pub fn keep(&mut self, kept: &FxHashSet<usize>) {
        let others = self.slots.iter_mut().enumerate().filter(|(slot, _)| !kept.contains(slot));
        others.for_each(|(_, memory)| *memory = None);
    }

    /// Has a buffer's bytes read where they are.
    pub fn lend(&mut self, buffer: &BufferRef, payload: &Payload) {
        self.lent.insert(buffer.id, payload.clone());
    }

    /// Ends what was lent to a buffer, if anything.
    pub fn give_back(&mut self, buffer: &BufferRef) {
        self.lent.remove(&buffer.id);
    }

    /// Copies what was lent to a buffer, if anything, to its place, since part of it is about to change.
    pub fn own(&mut self, buffer: &BufferRef, place: Place) {
        if let Some(payload) = self.lent.remove(&buffer.id) {
            let bytes = (*payload).as_ref();
            self.bytes_mut(place)[..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// All bytes of a buffer, from the first of its place on.
    pub fn bytes(&self, buffer: &BufferRef, place: Place) -> &[u8] {
        match self.lent.get(&buffer.id) {
            Some(payload) => (**payload).as_ref(),
            None => &self.slots[place.slot].as_ref().expect(THERE)[place.start..][..place.bytes],
        }
    }

    /// The bytes of a place.
    pub fn bytes_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.slots[place.slot].as_mut().expect(THERE)[place.start..][..place.bytes]
    }

    /// The bytes behind each binding of a command. What is written overlaps nothing else.
    pub fn cut(&mut self, bindings: &[Binding]) -> Vec<Bytes<'_>> {
        let Memory { slots, lent } = self;
        let mut cut: Vec<Option<Bytes<'_>>> = bindings.iter().map(|_| None).collect();
        let mut own = Vec::with_capacity(bindings.len());
        for (at, binding) in bindings.iter().enumerate() {
            match lent.get(&binding.buffer) {
                Some(payload) => cut[at] = Some(Bytes::Read(&(**payload).as_ref()[binding.range.clone()])),
                None => {
                    let start = binding.place.start;
                    own.push((binding.place.slot, start + binding.range.start, start + binding.range.end, at));
                }
            }
        }
        own.sort_unstable();
        let (mut own, mut slots) = (own.into_iter().peekable(), slots.iter_mut().enumerate());
        while let Some(&(slot, ..)) = own.peek() {
            let (_, memory) = slots.find(|(index, _)| *index == slot).expect(THERE);
            let (mut rest, mut before) = (&mut memory.as_mut().expect(THERE)[..], 0);
            while let Some((_, start, mut end, at)) = own.next_if(|(other, ..)| *other == slot) {
                // One buffer may be read at several bindings.
                let mut readers = vec![(start, end, at)];
                while let Some((_, start, next_end, at)) = own.next_if(|&(other, start, ..)| other == slot && start < end) {
                    end = end.max(next_end);
                    readers.push((start, next_end, at));
                }
                let (_, from_start) = std::mem::take(&mut rest).split_at_mut(start - before);
                let (piece, behind) = from_start.split_at_mut(end - start);
                (rest, before) = (behind, end);
                if bindings[at].writes {
                    assert!(readers.len() == 1, "what a command writes overlaps nothing else that it uses");
                    cut[at] = Some(Bytes::Written(piece));
                    continue;
                }
                let piece: &[u8] = piece;
                for (from, to, at) in readers {
                    assert!(!bindings[at].writes, "what a command writes overlaps nothing else that it uses");
                    cut[at] = Some(Bytes::Read(&piece[from - start..to - start]));
                }
            }
        }
        cut.into_iter().map(|bytes| bytes.expect("every binding has its bytes")).collect()
    }
}

/// Why a slot must be there.
const THERE: &str = "a slot is made before it is used";

/// Fresh memory.
fn map(bytes: usize, in_use: u64) -> Result<MmapMut> {
    MmapMut::map_anon(bytes).map_err(|error| Error::OutOfMemory {
        device: "the CPU".into(),
        in_use,
        reason: format!("the system refused {bytes} bytes: {error}"),
    })
}
