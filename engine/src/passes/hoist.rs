//! Hoists pointwise dispatches to the kernel whose rows they read, so that they can be fused with it.

use super::fuse::{Candidate, head};
use crate::buffer::BufferRef;
use crate::recording::{Command, Recording};

/// Commands past which nothing is hoisted: a result that waits long for its readers takes memory that others could have.
const FAR: usize = 32;

/// The recording in which what can follow a head at once does.
pub fn hoist(mut recording: Recording) -> Recording {
    // The result of the last head, where it was written, and where the next hoisted command goes.
    let mut last: Option<(BufferRef, usize, usize)> = None;
    let commands = &mut recording.commands;
    for at in 0..commands.len() {
        if let Some(head) = head(&commands[at]) {
            let result = commands[at].accesses().nth(head.rowwise().result);
            last = result.map(|(_, result)| (result, at, at + 1));
            continue;
        }
        let Some((result, begun, to)) = &mut last else { continue };
        if at - *begun > FAR {
            last = None;
            continue;
        }
        let reads_head = commands[at].reads().any(|buffer| buffer == *result);
        let Some(candidate) = reads_head.then(|| Candidate::of(&commands[at])).flatten() else { continue };
        let is_in_the_way = |command: &Command| {
            let mut writes = command.writes();
            let changes_an_input = writes.any(|buffer| candidate.inputs.iter().any(|input| input.id == buffer.id));
            changes_an_input || command.accesses().any(|(_, buffer)| buffer.id == candidate.output.id)
        };
        if !commands[*to..at].iter().any(is_in_the_way) {
            commands[*to..=at].rotate_right(1);
            *to += 1;
        }
    }
    recording
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Philox;
    use crate::{Device, ops};

    fn names(recording: &Recording) -> Vec<&'static str> {
        let is_dispatch = |command: &&Command| matches!(command, Command::Dispatch { .. });
        recording.commands.iter().filter(is_dispatch).map(Command::name).collect()
    }

    #[test]
    fn what_reads_a_norm_follows_it_in_order_and_what_needs_something_later_stays() {
        let device = Device::cpu();
        let x = device.tensor(&[0.5; 64], [8, 8]);
        let weight = device.tensor(&[1.0; 8], [8]);
        let y = ops::rms_norm(&x, &weight, 1e-5);
        let product = ops::matmul(&y, &x);
        let dropped = ops::dropout(&y, Philox::new(1), 0.5);
        let scaled = ops::scale(&dropped, 2.0);
        let both = ops::add(&y, &product);
        let negated = ops::neg(&y);
        let recorded = device.recorded();
        assert_eq!(names(&recorded), ["norm", "matmul", "dropout", "scale", "binary", "unary"]);
        assert_eq!(names(&hoist(recorded)), ["norm", "dropout", "unary", "matmul", "scale", "binary"]);
        drop((scaled, both, negated));
    }

    #[test]
    fn nothing_is_brought_from_far() {
        let device = Device::cpu();
        let x = device.tensor(&[0.5; 64], [8, 8]);
        let weight = device.tensor(&[1.0; 8], [8]);
        let y = ops::rms_norm(&x, &weight, 1e-5);
        let between: Vec<_> = (0..FAR).map(|_| ops::matmul(&x, &x)).collect();
        let dropped = ops::dropout(&y, Philox::new(1), 0.5);
        assert_eq!(names(&hoist(device.recorded())).last(), Some(&"dropout"));
        drop((between, dropped));
    }
}
