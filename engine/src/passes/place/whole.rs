//! A slot a buffer. Free slots wait for buffers of about their size, as long as all slots together stay within the most that
//! live buffers asked for, and a share.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Change, IDLE, Place, Pool};

/// The share by which slots may pass the most that live buffers asked for: a fifth.
const SHARE: usize = 5;
/// Bytes by which they may pass it in any case: fewer are not worth a call to the system.
const LEAST: usize = 16 << 20;
/// The share that is given back at a time, since a device has to finish what it does before: a sixteenth.
const AT_ONCE: usize = 16;

/// A recording, and how much was freed in it before: grows.
type Moment = (u64, u64);

#[derive(Default, Debug)]
pub(super) struct Whole {
    slots: Vec<Slot>,
    /// Free slots by size, the most recently freed first.
    by_size: BTreeMap<(usize, Reverse<Moment>), usize>,
    /// The same by when they were freed.
    by_age: BTreeMap<Moment, usize>,
    /// Numbers that no slot has.
    unused: Vec<usize>,
    /// Bytes of all slots.
    reserved: usize,
    /// Bytes of those that hold a buffer.
    taken: usize,
    /// Bytes that these buffers asked for.
    asked: usize,
    /// The most that was.
    most_asked: usize,
    now: Moment,
}

#[derive(Debug)]
struct Slot {
    bytes: usize,
    freed: Moment,
}

impl Pool for Whole {
    fn begin(&mut self, changes: &mut Vec<Change>) {
        self.now = (self.now.0 + 1, 0);
        let now = self.now.0;
        self.drop_oldest_while(changes, |_, (recording, _)| now - recording > IDLE);
    }

    fn take(&mut self, bytes: usize, changes: &mut Vec<Change>) -> Place {
        let wasted = self.taken - self.asked;
        self.asked += bytes;
        self.most_asked = self.most_asked.max(self.asked);
        // All slots together never pass the limit, since buffers waste no more of their slots than what is spare.
        let spare = LEAST.max(self.most_asked / SHARE);
        let limit = self.most_asked + spare;
        let smallest = self.by_size.range((bytes, Reverse((u64::MAX, u64::MAX)))..).next();
        let fitting = smallest.map(|(&(size, _), &slot)| (size, slot)).filter(|(size, _)| wasted + size - bytes <= spare);
        let slot = match fitting {
            Some((size, slot)) if size <= bytes + bytes / 4 => self.reuse(slot),
            _ if self.reserved + bytes <= limit => self.make(bytes, changes),
            Some((size, slot)) if size <= 2 * bytes => self.reuse(slot),
            _ => {
                self.drop_oldest_while(changes, |pool, _| pool.reserved + bytes > limit - limit / AT_ONCE);
                self.make(bytes, changes)
            }
        };
        let bytes = self.slots[slot].bytes;
        self.taken += bytes;
        Place { slot, start: 0, bytes }
    }

    fn give(&mut self, place: Place, bytes: usize) {
        self.taken -= place.bytes;
        self.asked -= bytes;
        self.now.1 += 1;
        self.slots[place.slot].freed = self.now;
        self.by_size.insert((place.bytes, Reverse(self.now)), place.slot);
        self.by_age.insert(self.now, place.slot);
    }

    fn reserved(&self) -> u64 {
        self.reserved as u64
    }

    fn clear(&mut self, changes: &mut Vec<Change>) {
        self.drop_oldest_while(changes, |_, _| true);
    }
}

impl Whole {
    /// Takes a slot that is free.
    fn reuse(&mut self, slot: usize) -> usize {
        let Slot { bytes, freed } = self.slots[slot];
        self.by_size.remove(&(bytes, Reverse(freed)));
        self.by_age.remove(&freed);
        slot
    }

    /// Takes a new one.
    fn make(&mut self, bytes: usize, changes: &mut Vec<Change>) -> usize {
        let new = Slot { bytes, freed: self.now };
        let slot = match self.unused.pop() {
            Some(slot) => {
                self.slots[slot] = new;
                slot
            }
            None => {
                self.slots.push(new);
                self.slots.len() - 1
            }
        };
        self.reserved += bytes;
        changes.push(Change::Make { slot, bytes });
        slot
    }

    /// Gives back free slots, those first that have been free for longest.
    fn drop_oldest_while(&mut self, changes: &mut Vec<Change>, goes_on: impl Fn(&Whole, Moment) -> bool) {
        while let Some((&freed, &slot)) = self.by_age.first_key_value()
            && goes_on(self, freed)
        {
            self.reuse(slot);
            self.reserved -= self.slots[slot].bytes;
            self.unused.push(slot);
            changes.push(Change::Drop { slot });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: usize = 1 << 20;

    fn take(pool: &mut Whole, mebibytes: usize) -> Place {
        pool.take(mebibytes * MEBIBYTE, &mut Vec::new())
    }

    #[test]
    fn a_slot_a_quarter_too_large_is_taken_and_one_much_larger_only_where_room_is_short() {
        let mut pool = Whole::default();
        let slots = [1000, 400, 300].map(|size| take(&mut pool, size));
        slots.into_iter().for_each(|place| pool.give(place, place.bytes));
        assert_eq!(take(&mut pool, 350), slots[1]);
        // The limit is at 2,040 MiB.
        assert_ne!(take(&mut pool, 170), slots[2]);
        assert_eq!(take(&mut pool, 171), slots[2]);
        assert_eq!(pool.reserved, 1870 * MEBIBYTE);
    }

    #[test]
    fn the_slots_that_were_free_for_longest_make_room() {
        let (mut pool, mut changes) = (Whole::default(), Vec::new());
        let slots = [100, 200, 300, 400].map(|size| take(&mut pool, size));
        [1, 0, 2].into_iter().for_each(|at| pool.give(slots[at], slots[at].bytes));
        pool.take(350 * MEBIBYTE, &mut changes);
        let dropped = [1, 0].map(|at| Change::Drop { slot: slots[at].slot });
        assert_eq!(changes, [dropped.as_slice(), &[Change::Make { slot: slots[0].slot, bytes: 350 * MEBIBYTE }]].concat());
        assert_eq!(pool.reserved, 1050 * MEBIBYTE);
    }
}
