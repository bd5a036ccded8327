//! Rewrites of a recording between the ops and the device, each a function with its own tests.

mod dead;
mod finish;
mod fuse;
mod group;
mod hoist;
mod lower;
mod place;
mod settle;

use rustc_hash::FxHashMap;

use crate::recording::{Command, Recording};

pub use dead::drop_dead;
pub use finish::finish;
pub use fuse::fuse;
pub use group::group;
pub use hoist::hoist;
pub use lower::lower;
pub use place::{Change, Place, Placement, Slots, place};
pub use settle::settle;

/// How often each buffer is read, of those that begin and end in one recording.
pub type Reads = FxHashMap<u64, usize>;

/// Counts [`Reads`]. `is_new` tells whether a buffer comes into being in this recording.
pub fn reads(recording: &Recording, is_new: impl Fn(u64) -> bool) -> Reads {
    let mut reads = Reads::with_capacity_and_hasher(recording.commands.len(), Default::default());
    for command in &recording.commands {
        if let Command::Free { buffer } = command
            && is_new(buffer.id)
        {
            reads.insert(buffer.id, 0);
        }
    }
    for buffer in recording.commands.iter().flat_map(Command::reads) {
        if let Some(count) = reads.get_mut(&buffer.id) {
            *count += 1;
        }
    }
    reads
}
