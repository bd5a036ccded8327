//! What recordings that failed would have written, and whatever would be computed from it.

use rustc_hash::FxHashMap;

use crate::buffer::BufferRef;
use crate::error::Error;
use crate::kernel::Access;
use crate::recording::{Command, Recording};

/// The lost buffers that still have a handle, and what each was lost by.
#[derive(Default)]
pub(super) struct Lost(FxHashMap<u64, Error>);

impl Lost {
    /// Counts what a failed recording writes, and does not free, as lost. Returns all that it writes or frees.
    pub fn add(&mut self, recording: &Recording, error: &Error) -> Vec<u64> {
        let mut gone: Vec<u64> = recording.commands.iter().flat_map(Command::writes).map(|buffer| buffer.id).collect();
        self.0.extend(gone.iter().map(|id| (*id, error.clone())));
        for command in &recording.commands {
            if let Command::Free { buffer } = command {
                self.0.remove(&buffer.id);
                gone.push(buffer.id);
            }
        }
        gone
    }

    /// A recording without the commands that were refused or need what was lost, whose own results are lost then too; and the error,
    /// if one was refused or is a download.
    pub fn spare(&mut self, mut recording: Recording) -> (Recording, Option<Error>) {
        let mut refused = None;
        if !self.0.is_empty() || recording.commands.iter().any(|command| matches!(command, Command::Refused { .. })) {
            recording.commands.retain(|command| self.can_run(command, &mut refused));
        }
        (recording, refused)
    }

    fn can_run(&mut self, command: &Command, refused: &mut Option<Error>) -> bool {
        match command {
            // Of what holds no memory `drop_dead` knows that nothing was written.
            Command::Free { buffer } => {
                self.0.remove(&buffer.id);
                return true;
            }
            Command::Refused { error, buffers } => {
                self.0.extend(buffers.iter().map(|buffer| (buffer.id, error.clone())));
                refused.get_or_insert(error.clone());
                return false;
            }
            _ => {}
        }
        let replaces = |access: Access, buffer: &BufferRef| access == Access::Write && !buffer.is_part();
        let needed = command.accesses().filter(|(access, buffer)| !replaces(*access, buffer));
        let lost = needed.filter_map(|(_, buffer)| self.0.get(&buffer.id)).next().cloned();
        let Some(error) = lost else {
            command.overwrites().filter(|buffer| !buffer.is_part()).for_each(|buffer| {
                self.0.remove(&buffer.id);
            });
            return true;
        };
        self.0.extend(command.writes().map(|buffer| (buffer.id, error.clone())));
        if let Command::Download { .. } = command {
            *refused = Some(error);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use crate::device::Config;
    use crate::testing::device_names;
    use crate::{Device, Error, Tensor, ops};

    /// A device with room for 12 Mi elements.
    fn limited(name: &str) -> Device {
        let size = if name == "reference" { 8 } else { 4 };
        Device::open_with(name, &Config { memory_limit: Some(size * (12 << 20)), ..Config::default() }).unwrap()
    }

    /// More than there is room for, in two tensors that are each less.
    fn too_much(device: &Device) -> [Tensor; 2] {
        [1.0, 2.0].map(|value| ops::full(device, value, [8 << 20]))
    }

    #[track_caller]
    fn refused(outcome: crate::Result<impl std::fmt::Debug>) {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("are needed at once, and its limit is"), "{error}");
    }

    #[test]
    fn a_device_outlives_an_error_and_has_its_memory_back() {
        for name in device_names() {
            let device = limited(name);
            let x = device.tensor(&[1.0, 2.0, 3.0], [3]);
            let y = ops::neg(&x);
            device.flush().unwrap();
            let before = device.memory().in_use;

            let lost = too_much(&device);
            let unlucky = ops::add(&x, &y);
            refused(device.flush());
            assert_eq!(device.memory().in_use, before, "{name}");
            let sum = ops::add(&y, &y);
            assert_eq!(x.to_vec().unwrap(), [1.0, 2.0, 3.0]);
            assert_eq!(sum.to_vec().unwrap(), [-2.0, -4.0, -6.0], "{name}");

            // What was lost stays so, and what is computed from it.
            refused(lost[0].slice(0, 0..1).item());
            refused(ops::add(&unlucky, &x).to_vec());
            drop((lost, unlucky, sum));
            let smaller = ops::full(&device, 3.0, [8 << 20]);
            assert_eq!(smaller.slice(0, 5..6).item().unwrap(), 3.0, "{name}");
            drop(smaller);
            device.flush().unwrap();
            assert_eq!(device.memory().in_use, before, "{name}");
        }
    }

    #[test]
    fn what_is_written_anew_is_no_longer_lost() {
        for name in device_names() {
            let device = limited(name);
            let x = device.tensor(&[1.0; 4], [4]);
            device.flush().unwrap();
            let (kept, _others) = (x.clone(), too_much(&device));
            kept.replace(bytemuck::cast_slice(&[2.0f32; 4]));
            refused(device.flush());
            refused(x.to_vec());
            x.replace(bytemuck::cast_slice(&[3.0f32; 4]));
            assert_eq!(x.to_vec().unwrap(), [3.0; 4], "{name}");
        }
    }

    #[test]
    fn an_error_met_while_recording_is_told_once() {
        for name in device_names() {
            let device = limited(name);
            let x = device.tensor(&[0.0; 4], [4]);
            let others = too_much(&device);
            // Enough commands to be run before anybody asks.
            let y = (0..3000).fold(x, |y, _| ops::tanh(&y));
            drop(others);
            refused(device.flush());
            device.flush().unwrap();
            refused(y.to_vec());
        }
    }
}
