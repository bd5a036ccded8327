//! Large slots, cut into the places of many buffers. What is freed joins what is free beside it, so memory goes from buffers of
//! one size to those of another without a call to the system.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, IDLE, Place, Pool};

/// Bytes of the first slot.
const SMALLEST: usize = 64 << 20;
/// Bytes of a slot at most, unless one buffer needs more.
const LARGEST: usize = 1 << 30;

#[derive(Default, Debug)]
pub(super) struct Cut {
    slots: Vec<Option<Slot>>,
    /// Free places by where they begin, as slot and byte: their bytes. None touches another.
    free: BTreeMap<(usize, usize), usize>,
    /// The same by size: bytes, slot and first byte.
    by_size: BTreeSet<(usize, usize, usize)>,
    recordings: u64,
}

#[derive(Debug)]
struct Slot {
    bytes: usize,
    /// Where what never held a buffer begins: the system has given no memory for it yet.
    fresh: usize,
    /// When it was last used.
    used: u64,
}

impl Pool for Cut {
    fn begin(&mut self, changes: &mut Vec<Change>) {
        self.recordings += 1;
        let now = self.recordings;
        self.drop_free(changes, |slot| now - slot.used > IDLE);
    }

    fn take(&mut self, bytes: usize, changes: &mut Vec<Change>) -> Place {
        let smallest = self.by_size.range((bytes, 0, 0)..).next().copied();
        let (slot, start) = match smallest {
            Some((free, slot, start)) => {
                self.remove(slot, start, free);
                if free > bytes {
                    self.insert(slot, start + bytes, free - bytes);
                }
                (slot, start)
            }
            None => self.extend(bytes).unwrap_or_else(|| {
                let slot = self.make(bytes, changes);
                (slot, 0)
            }),
        };
        let place = Place { slot, start, bytes };
        let slot = self.slots[slot].as_mut().expect("what is free lies in a slot");
        slot.fresh = slot.fresh.max(start + bytes);
        slot.used = self.recordings;
        place
    }

    fn give(&mut self, place: Place, _: usize) {
        let Place { slot, mut start, mut bytes } = place;
        if let Some((&(before, at), &free)) = self.free.range(..(slot, start)).next_back()
            && before == slot
            && at + free == start
        {
            self.remove(slot, at, free);
            (start, bytes) = (at, free + bytes);
        }
        if let Some(&free) = self.free.get(&(slot, start + bytes)) {
            self.remove(slot, start + bytes, free);
            bytes += free;
        }
        self.insert(slot, start, bytes);
        self.slots[slot].as_mut().expect("a buffer lies in a slot").used = self.recordings;
    }

    fn reserved(&self) -> u64 {
        self.slots.iter().flatten().map(|slot| slot.fresh as u64).sum()
    }

    fn clear(&mut self, changes: &mut Vec<Change>) {
        self.drop_free(changes, |_| true);
    }
}

impl Cut {
    /// A place at the end of what a slot has held so far.
    fn extend(&mut self, bytes: usize) -> Option<(usize, usize)> {
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            // What is free right before the end is used with it.
            let last = self.free.range(..(index + 1, 0)).next_back().map(|(&at, &free)| (at, free));
            let last = last.filter(|((of, start), free)| *of == index && start + free == slot.fresh);
            let start = last.map_or(slot.fresh, |((_, start), _)| start);
            if slot.bytes - start >= bytes {
                if let Some(((slot, start), free)) = last {
                    self.remove(slot, start, free);
                }
                return Some((index, start));
            }
        }
        None
    }

    /// A new slot with room for so many bytes; slots in which nothing lies, none of which had it, make room.
    fn make(&mut self, bytes: usize, changes: &mut Vec<Change>) -> usize {
        self.drop_free(changes, |_| true);
        let so_far: usize = self.slots.iter().flatten().map(|slot| slot.bytes).sum();
        let bytes = bytes.max(so_far.clamp(SMALLEST, LARGEST));
        let index = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[index] = Some(Slot { bytes, fresh: 0, used: self.recordings });
        changes.push(Change::Make { slot: index, bytes });
        index
    }

    /// Gives back the slots in which nothing lies, of those that `goes`.
    fn drop_free(&mut self, changes: &mut Vec<Change>, goes: impl Fn(&Slot) -> bool) {
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots[index].as_ref().filter(|slot| goes(slot)) else { continue };
            let fresh = slot.fresh;
            if self.free.get(&(index, 0)) == Some(&fresh) {
                self.remove(index, 0, fresh);
                self.slots[index] = None;
                changes.push(Change::Drop { slot: index });
            }
        }
    }

    fn insert(&mut self, slot: usize, start: usize, bytes: usize) {
        self.free.insert((slot, start), bytes);
        self.by_size.insert((bytes, slot, start));
    }

    fn remove(&mut self, slot: usize, start: usize, bytes: usize) {
        self.free.remove(&(slot, start));
        self.by_size.remove(&(bytes, slot, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_side_by_side_is_one_place_again() {
        let (mut pool, mut changes) = (Cut::default(), Vec::new());
        let places = [256, 512, 128, 64].map(|bytes| pool.take(bytes, &mut changes));
        assert_eq!(places.map(|place| place.start), [0, 256, 768, 896]);
        [2, 0, 1].into_iter().for_each(|at| pool.give(places[at], 0));
        assert_eq!(pool.take(896, &mut changes).start, 0);
        assert_eq!(pool.reserved(), 960);
        assert_eq!(changes, [Change::Make { slot: 0, bytes: SMALLEST }]);
    }

    #[test]
    fn the_smallest_hole_is_taken_and_the_end_grows_from_what_is_free_before_it() {
        let (mut pool, mut changes) = (Cut::default(), Vec::new());
        let [large, _, small, _, last] = [640, 64, 128, 64, 256].map(|bytes| pool.take(bytes, &mut changes));
        [large, small, last].into_iter().for_each(|place| pool.give(place, 0));
        assert_eq!(pool.take(128, &mut changes), small);
        assert_eq!(pool.take(1024, &mut changes).start, last.start);
        assert_eq!(pool.reserved(), 640 + 64 + 128 + 64 + 1024);
    }

    #[test]
    fn a_slot_that_is_free_makes_room_for_one_that_is_larger() {
        let (mut pool, mut changes) = (Cut::default(), Vec::new());
        let place = pool.take(LARGEST, &mut changes);
        pool.give(place, 0);
        pool.take(2 * LARGEST, &mut changes);
        assert_eq!(changes[1..], [Change::Drop { slot: 0 }, Change::Make { slot: 0, bytes: 2 * LARGEST }]);
        assert_eq!(pool.reserved(), 2 * LARGEST as u64);
    }
}
