//! Drops commands whose results nobody reads.

use rustc_hash::FxHashSet;

use crate::recording::{Command, Recording};

/// The recording without the uploads and dispatches all of whose results are freed later in it and read by nobody in between.
/// `is_new` tells whether a buffer comes into being in this recording: the `Free` of one that no longer does goes too.
pub fn drop_dead(recording: Recording, is_new: impl Fn(u64) -> bool) -> Recording {
    let count = recording.commands.len();
    let [mut unread, mut written] = [(); 2].map(|()| FxHashSet::with_capacity_and_hasher(count, Default::default()));
    let mut kept = Vec::with_capacity(count);
    for command in recording.commands.into_iter().rev() {
        match &command {
            Command::Free { buffer } => {
                unread.insert(buffer.id);
            }
            Command::Download { .. } | Command::Refused { .. } => {}
            Command::Upload { .. } | Command::Dispatch { .. } | Command::Fused { .. } | Command::Group { .. } => {
                if command.writes().all(|buffer| unread.contains(&buffer.id)) {
                    continue;
                }
                written.extend(command.writes().map(|buffer| buffer.id));
            }
        }
        for buffer in command.reads() {
            unread.remove(&buffer.id);
        }
        kept.push(command);
    }
    kept.retain(|command| match command {
        Command::Free { buffer } => written.contains(&buffer.id) || !is_new(buffer.id),
        _ => true,
    });
    kept.reverse();
    Recording { commands: kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, ops};

    #[test]
    fn a_chain_whose_end_is_dropped_goes_and_what_is_read_stays() {
        let device = Device::cpu();
        let x = device.tensor(&[1.0, 2.0], [2]);
        let kept = ops::exp(&x);
        drop(ops::sqrt(&ops::exp(&x)));
        let before = device.recorded();
        assert_eq!(before.dispatches(), 3);
        let after = drop_dead(before, |_| true);
        assert_eq!(after.dispatches(), 1, "{after:?}");
        assert!(!after.commands.iter().any(|command| matches!(command, Command::Free { .. })), "{after:?}");
        let error = kept.to_vec().unwrap()[0] - 1f32.exp();
        assert!(error.abs() < 1e-6, "within a few units in the last place of e, got {error} off");
    }
}
