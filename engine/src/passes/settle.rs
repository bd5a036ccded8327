//! Lets results settle: what would be copied into a part of a larger buffer, and then end, is written there at once.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::buffer::BufferRef;
use crate::kernel::Access;
use crate::recording::{Command, Recording};

/// The recording without such copies. `is_new` tells whether a buffer comes into being in this recording.
pub fn settle(recording: Recording, is_new: impl Fn(u64) -> bool) -> Recording {
    let homes = homes(&recording, is_new);
    if homes.is_empty() {
        return recording;
    }
    let is_done = |command: &Command| match command {
        Command::Free { buffer } => homes.contains_key(&buffer.id),
        _ => as_copy(command).is_some_and(|[from, to]| homes.get(&from.id) == Some(&to)),
    };
    let mut commands = recording.commands;
    commands.retain(|command| !is_done(command));
    for buffer in commands.iter_mut().flat_map(Command::buffers_mut) {
        *buffer = *homes.get(&buffer.id).unwrap_or(buffer);
    }
    Recording { commands }
}

/// The part in which each buffer can come into being that would be copied there.
fn homes(recording: &Recording, is_new: impl Fn(u64) -> bool) -> FxHashMap<u64, BufferRef> {
    let moved = |pair: &[Command]| match (as_copy(&pair[0]), &pair[1]) {
        (Some([from, to]), Command::Free { buffer }) if buffer.id == from.id && to.is_part() && is_new(from.id) => {
            Some((from.id, to))
        }
        _ => None,
    };
    let mut homes: FxHashMap<u64, BufferRef> = recording.commands.windows(2).filter_map(moved).collect();
    if homes.is_empty() {
        return homes;
    }
    let larger: FxHashSet<u64> = homes.values().map(|home| home.id).collect();
    // What was done so far to the larger buffers.
    let mut touched: Vec<BufferRef> = Vec::new();
    for command in &recording.commands {
        if let Some([from, to]) = as_copy(command)
            && touched.iter().any(|before| before.overlaps(&to))
        {
            homes.remove(&from.id);
        }
        touched.extend(command.accesses().map(|(_, buffer)| buffer).filter(|buffer| larger.contains(&buffer.id)));
        let accesses: Vec<(Access, BufferRef)> = command.accesses().collect();
        for (at, (access, buffer)) in accesses.iter().enumerate() {
            let Some(&home) = homes.get(&buffer.id) else { continue };
            // No device lets a command read one part of a buffer and write another.
            let clashes = |(other_at, (other_access, other)): (usize, &(Access, BufferRef))| {
                let other = homes.get(&other.id).unwrap_or(other);
                other_at != at && other.id == home.id && [access, other_access].contains(&&Access::Read)
            };
            if as_copy(command).is_none_or(|[_, to]| to != home) && accesses.iter().enumerate().any(clashes) {
                homes.remove(&buffer.id);
            }
        }
    }
    homes
}

/// What a command copies in the order of memory: from where, to where.
fn as_copy(command: &Command) -> Option<[BufferRef; 2]> {
    let Command::Dispatch { kernel, params, buffers } = command else { return None };
    let is_whole = || buffers[0].elements == buffers[1].elements;
    ((kernel.copies)(bytemuck::cast_slice(params)) && is_whole()).then(|| [buffers[0], buffers[1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device_names;
    use crate::{DType, Device, ops};

    /// How many dispatches there are before and after.
    fn dispatches(device: &Device) -> (usize, usize) {
        let recorded = device.recorded();
        (recorded.dispatches(), settle(recorded, |_| true).dispatches())
    }

    #[test]
    fn results_are_written_where_they_are_moved() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            let x = device.tensor(&[0.25; 64], [8, 8]);
            let larger = device.empty([128], DType::F32);
            let [product, sum] = [ops::matmul(&x, &x), ops::add(&x, &x)];
            product.move_into(&larger, 64);
            sum.move_into(&larger, 0);
            assert_eq!(dispatches(&device), (4, 2));
            let both = ops::neg(&larger);
            assert_eq!(product.to_vec().unwrap(), [0.5; 64]);
            assert_eq!(sum.to_vec().unwrap(), [0.5; 64]);
            assert_eq!(both.to_vec().unwrap(), [-0.5; 128]);
        }
    }

    #[test]
    fn what_was_there_is_read_before_it_is_written_over() {
        let device = Device::cpu();
        let larger = device.tensor(&[1.0; 128], [128]);
        let x = device.tensor(&[2.0; 64], [64]);
        let late = ops::neg(&x);
        let before = ops::exp(&larger.cut(0, [64].into()));
        late.move_into(&larger, 0);
        // One part would be read and another written by one command.
        let next = ops::sub(&larger.cut(0, [64].into()), &x);
        next.move_into(&larger, 64);
        assert_eq!(dispatches(&device), (5, 5));
        assert_eq!(before.to_vec().unwrap()[63], 1f32.exp());
        assert_eq!(larger.to_vec().unwrap(), [[-2.0; 64], [-4.0; 64]].concat());
    }
}
