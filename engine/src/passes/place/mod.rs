//! Gives every buffer a place in memory for as long as it lives, so that tensors that are never alive together share it.

mod cut;
mod whole;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::buffer::BufferRef;
use crate::recording::{Command, Recording};
use cut::Cut;
use whole::Whole;

/// Where a buffer lies: in a slot, which is memory as it was taken from the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which.
    pub slot: usize,
    /// The first of its bytes that the buffer has.
    pub start: usize,
    /// How many it has.
    pub bytes: usize,
}

/// What becomes of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// So many bytes are taken from the system for it.
    Make {
        /// Which; there is none of this number before.
        slot: usize,
        /// How many bytes.
        bytes: usize,
    },
    /// It is given back, and nothing lies in it.
    Drop {
        /// Which.
        slot: usize,
    },
}

/// Where the buffers of one recording lie, and how the slots change for it.
#[derive(Default, Debug)]
pub struct Placement {
    places: FxHashMap<u64, Place>,
    changes: FxHashMap<usize, Vec<Change>>,
    most_in_use: u64,
}

impl Placement {
    /// Where a buffer lies.
    pub fn place(&self, buffer: &BufferRef) -> Place {
        self.places[&buffer.id]
    }

    /// What becomes of slots right before the command at this index.
    pub fn changes_before(&self, command: usize) -> &[Change] {
        self.changes.get(&command).map_or(&[], Vec::as_slice)
    }

    /// The most bytes of places that hold a live buffer at any moment of the recording.
    pub fn most_in_use(&self) -> u64 {
        self.most_in_use
    }
}

/// The slots of one device: which there are, what is free in them, and which buffer lies where.
#[derive(Debug)]
pub struct Slots {
    pool: Box<dyn Pool>,
    live: FxHashMap<u64, Live>,
    in_use: Watermark,
    of_tensors: Watermark,
}

/// A way to share slots out.
trait Pool: std::fmt::Debug + Send {
    /// Another recording begins: what was free for long enough is given back.
    fn begin(&mut self, changes: &mut Vec<Change>);
    /// A place of at least so many bytes.
    fn take(&mut self, bytes: usize, changes: &mut Vec<Change>) -> Place;
    /// Frees a place at which so many bytes were asked for.
    fn give(&mut self, place: Place, bytes: usize);
    /// Bytes of all slots, free ones too.
    fn reserved(&self) -> u64;
    /// Gives back every slot in which nothing lies.
    fn clear(&mut self, changes: &mut Vec<Change>);
}

/// Recordings after which a slot is given back that nobody used: long enough for a step of another length to come round again.
const IDLE: u64 = 64;

/// A buffer that has a place.
#[derive(Debug)]
struct Live {
    place: Place,
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
    /// Slots that hold many buffers each, for a device that can use parts of one slot as if they were apart.
    pub fn cut() -> Slots {
        Slots::of(Cut::default())
    }

    /// Slots that hold a buffer each, for a device that cannot read one part of a slot while it writes another.
    pub fn whole() -> Slots {
        Slots::of(Whole::default())
    }

    fn of(pool: impl Pool + 'static) -> Slots {
        Slots { pool: Box::new(pool), live: FxHashMap::default(), in_use: Watermark::default(), of_tensors: Watermark::default() }
    }

    /// Bytes of the places that hold a live buffer.
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

    /// Bytes of all slots, free ones too; of a slot that is cut, those that ever held a buffer.
    pub fn reserved(&self) -> u64 {
        self.pool.reserved()
    }

    /// Starts measuring the peak anew.
    pub fn reset_peak(&mut self) {
        for watermark in [&mut self.in_use, &mut self.of_tensors] {
            watermark.peak = watermark.now;
        }
    }

    /// Whether the buffer was placed by an earlier recording and not freed since.
    pub fn holds(&self, buffer: u64) -> bool {
        self.live.contains_key(&buffer)
    }

    /// After a recording that failed: takes the places of these buffers from them, and gives back every slot in which nothing lies
    /// then, so that none is left that may not have been made. Returns the slots that stay.
    pub fn abandon(&mut self, buffers: impl IntoIterator<Item = u64>) -> FxHashSet<usize> {
        for buffer in buffers {
            if let Some(live) = self.live.remove(&buffer) {
                self.release(live);
            }
        }
        self.pool.clear(&mut Vec::new());
        self.live.values().map(|live| live.place.slot).collect()
    }

    fn acquire(&mut self, bytes: usize, changes: &mut Vec<Change>) -> Live {
        let place = self.pool.take(bytes, changes);
        self.in_use.add(place.bytes);
        self.of_tensors.add(bytes);
        Live { place, bytes }
    }

    fn release(&mut self, Live { place, bytes }: Live) {
        self.pool.give(place, bytes);
        self.in_use.remove(place.bytes);
        self.of_tensors.remove(bytes);
    }
}

/// Places every buffer of the recording. A buffer takes a place when it is first written and gives it back when it is freed.
/// `bytes` says how many a buffer needs.
pub fn place(recording: &Recording, slots: &mut Slots, bytes: impl Fn(&BufferRef) -> usize) -> Placement {
    let mut placement = Placement { most_in_use: slots.in_use(), ..Placement::default() };
    placement.places.reserve(recording.commands.len());
    let mut changes = Vec::new();
    slots.pool.begin(&mut changes);
    for (at, command) in recording.commands.iter().enumerate() {
        for (_, buffer) in command.accesses() {
            let place = match slots.live.get(&buffer.id) {
                Some(live) => live.place,
                None => {
                    let live = slots.acquire(bytes(&buffer), &mut changes);
                    let place = live.place;
                    slots.live.insert(buffer.id, live);
                    placement.most_in_use = placement.most_in_use.max(slots.in_use());
                    place
                }
            };
            placement.places.insert(buffer.id, place);
        }
        if !changes.is_empty() {
            placement.changes.insert(at, std::mem::take(&mut changes));
        }
        if let Command::Free { buffer } = command
            && let Some(live) = slots.live.remove(&buffer.id)
        {
            slots.release(live);
        }
    }
    placement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Philox;
    use crate::{Device, ops};

    /// The slots of a system, as the changes make and drop them; none is made twice, or dropped that is not there.
    #[derive(Default)]
    struct System {
        slots: FxHashMap<usize, usize>,
        made: usize,
    }

    impl System {
        fn change(&mut self, changes: &mut Vec<Change>) {
            for change in changes.drain(..) {
                match change {
                    Change::Make { slot, bytes } => {
                        assert_eq!(self.slots.insert(slot, bytes), None, "slot {slot}");
                        self.made += bytes;
                    }
                    Change::Drop { slot } => assert!(self.slots.remove(&slot).is_some(), "slot {slot}"),
                }
            }
        }

        fn bytes(&self) -> usize {
            self.slots.values().sum()
        }
    }

    /// Takes memory as a training step over rows of that length does: what every layer keeps for the backward pass, and what
    /// passes between.
    fn step(slots: &mut Slots, system: &mut System, length: usize) {
        let mut changes = Vec::new();
        slots.pool.begin(&mut changes);
        let mut take = |slots: &mut Slots, share: usize| {
            let live = slots.acquire(length * share * 1024, &mut changes);
            let place = live.place;
            system.change(&mut changes);
            assert!(place.start + place.bytes <= system.slots[&place.slot], "{place:?} lies in its slot");
            live
        };
        let mut kept = Vec::new();
        for _ in 0..30 {
            let passing = [9, 3, 24].map(|share| take(slots, share));
            kept.push([2, 2, 6].map(|share| take(slots, share)));
            passing.into_iter().for_each(|live| slots.release(live));
        }
        while let Some(layer) = kept.pop() {
            let passing = [24, 9, 2, 6].map(|share| take(slots, share));
            layer.into_iter().chain(passing).for_each(|live| slots.release(live));
        }
    }

    #[test]
    fn a_chain_of_any_length_needs_two_places_and_running_it_again_needs_no_more() {
        let device = Device::cpu();
        let mut x = device.tensor(&[0.5; 100], [100]);
        for _ in 0..20 {
            x = ops::exp(&x);
        }
        for mut slots in [Slots::cut(), Slots::whole()] {
            place(&device.recorded(), &mut slots, |buffer| buffer.elements * 4);
            assert_eq!(slots.reserved(), 2 * 400);
            assert_eq!(slots.peak(), 2 * 400);
            assert_eq!(slots.in_use(), 400);
        }
    }

    #[test]
    fn rows_of_mixed_lengths_need_little_more_memory_than_the_longest() {
        for mut slots in [Slots::cut(), Slots::whole()] {
            let (mut system, random) = (System::default(), Philox::new(7));
            let mut most = 0;
            for at in 0..200 {
                step(&mut slots, &mut system, 50 + random.below(at, 450));
                most = most.max(slots.reserved());
            }
            let ratio = most as f64 / slots.peak_live() as f64;
            assert!(ratio < 1.25, "{slots:?}: {most} bytes reserved, {} asked for: {ratio}", slots.peak_live());
        }
    }

    #[test]
    fn steps_of_one_length_take_nothing_from_the_system_after_a_few() {
        for mut slots in [Slots::cut(), Slots::whole()] {
            let mut system = System::default();
            (0..4).for_each(|_| step(&mut slots, &mut system, 300));
            let made = system.made;
            (0..100).for_each(|_| step(&mut slots, &mut system, 300));
            assert_eq!(system.made, made, "{slots:?}");
        }
    }

    #[test]
    fn what_nobody_uses_for_long_is_given_back() {
        for mut slots in [Slots::cut(), Slots::whole()] {
            let mut system = System::default();
            step(&mut slots, &mut system, 500);
            let kept = slots.reserved();
            (0..80).for_each(|_| step(&mut slots, &mut system, 5));
            assert!(slots.reserved() < kept / 2, "{slots:?}");
            assert!(system.bytes() < kept as usize, "{slots:?}");
        }
    }
}
