//! Lets kernels finish what was begun: a product, or a norm's gradient, whose one reader drops elements of it or adds something to it writes
//! what that reader would.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Reads;
use crate::buffer::BufferRef;
use crate::kernel::{AnyEpilogue, Finish};
use crate::recording::{Command, Recording};

/// The recording without the dropouts and additions that the kernel before them can make. Its reads stay as they are.
pub fn finish(recording: Recording, reads: &Reads) -> Recording {
    let mut out: Vec<Command> = Vec::with_capacity(recording.commands.len());
    // Where each buffer was last written.
    let mut written: FxHashMap<u64, usize> = FxHashMap::with_capacity_and_hasher(recording.commands.len(), Default::default());
    let mut gone: FxHashSet<u64> = FxHashSet::default();
    for command in recording.commands {
        match &command {
            Command::Free { buffer } if gone.contains(&buffer.id) => continue,
            _ => {}
        }
        // Where a buffer was written that is read once.
        let begun = |buffer: BufferRef| {
            let at = *written.get(&buffer.id).filter(|_| reads.get(&buffer.id) == Some(&1) && !buffer.is_part())?;
            Some((at, &out[at], buffer))
        };
        let finished = match as_finish(&command) {
            Some((Finish::Dropout(drops), buffers)) => {
                let [x, y] = [buffers[0], buffers[1]];
                begun(x).and_then(|(at, command, x)| {
                    Some((at, x, y, with_ending(command, y, |epilogue, params, _| (epilogue.drop)(params, drops))?))
                })
            }
            Some((Finish::Sum, buffers)) => {
                let [a, b, sum] = [buffers[0], buffers[1], buffers[2]];
                // The other side must be there before; of two products, the later can add the earlier.
                [(a, b), (b, a)].into_iter().filter(|(x, other)| x.id != other.id).find_map(|(x, other)| {
                    let (at, command, x) = begun(x)?;
                    let is_there = written.get(&other.id).is_none_or(|&other| other < at);
                    let finishing = with_ending(command, sum, |epilogue, params, buffers| {
                        buffers[epilogue.residual] = other;
                        (epilogue.add)(params)
                    });
                    Some((at, x, sum, finishing.filter(|_| is_there)?))
                })
            }
            None => None,
        };
        if let Some((at, from, to, finishing)) = finished {
            out[at] = finishing;
            gone.insert(from.id);
            written.insert(to.id, at);
            continue;
        }
        written.extend(command.writes().map(|buffer| (buffer.id, out.len())));
        out.push(command);
    }
    Recording { commands: out }
}

/// What a command does that the one before it could do in its place, and its buffers, if it goes through the whole of them.
fn as_finish(command: &Command) -> Option<(Finish, &[BufferRef])> {
    let Command::Dispatch { kernel, params, buffers } = command else { return None };
    let finish = (kernel.finish)(bytemuck::cast_slice(params))?;
    buffers.iter().all(|buffer| buffer.elements == buffers[0].elements).then_some((finish, buffers))
}

/// The command with more done to its result, which it writes to `y`. `None` if it cannot, or `change` says so.
fn with_ending(
    command: &Command,
    y: BufferRef,
    change: impl Fn(&AnyEpilogue, &mut [u8], &mut [BufferRef]) -> bool,
) -> Option<Command> {
    let Command::Dispatch { kernel, params, buffers } = command else { return None };
    let epilogue = kernel.epilogue.as_ref()?;
    let (mut params, mut buffers) = (params.clone(), buffers.clone());
    let fits = y.elements == buffers[epilogue.result].elements;
    let can = fits && change(epilogue, bytemuck::cast_slice_mut(&mut params), &mut buffers);
    buffers[epilogue.result] = y;
    can.then_some(Command::Dispatch { kernel, params, buffers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Config;
    use crate::passes::reads;
    use crate::random::Philox;
    use crate::testing::device_names;
    use crate::{Device, ops};

    fn dispatches(device: &Device) -> (usize, usize) {
        let recorded = device.recorded();
        let reads = reads(&recorded, |_| true);
        (recorded.dispatches(), finish(recorded, &reads).dispatches())
    }

    #[test]
    fn a_product_adds_what_was_there_before_it_on_either_side() {
        let device = Device::cpu();
        let [a, b, c] = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]].map(|x| device.tensor(&x, [2, 2]));
        let left = ops::add(&ops::matmul(&a, &b), &c);
        let right = ops::add(&c, &ops::matmul(&a, &b));
        let both = ops::add(&ops::matmul(&a, &b), &ops::matmul(&a, &c));
        assert_eq!(dispatches(&device), (7, 4));
        assert_eq!(left.to_vec().unwrap(), [28.0, 32.0, 54.0, 62.0]);
        assert_eq!(right.to_vec().unwrap(), [28.0, 32.0, 54.0, 62.0]);
        assert_eq!(both.to_vec().unwrap(), [19.0 + 31.0, 22.0 + 34.0, 43.0 + 71.0, 50.0 + 78.0]);
    }

    #[test]
    fn a_product_drops_and_then_adds_but_does_not_drop_what_was_added() {
        let device = Device::cpu();
        let values: Vec<f32> = (0..4096).map(|at| at as f32).collect();
        let [a, b] = [device.tensor(&values[..64], [64, 1]), device.tensor(&values[..64], [1, 64])];
        let residual = device.tensor(&values, [64, 64]);
        let (random, probability) = (Philox::new(3), 0.25);
        let dropped_first = ops::add(&ops::dropout(&ops::matmul(&a, &b), random, probability), &residual);
        let added_first = ops::dropout(&ops::add(&ops::matmul(&a, &b), &residual), random, probability);
        let twice = ops::dropout(&ops::dropout(&ops::matmul(&a, &b), random, probability), random, probability);
        assert_eq!(dispatches(&device), (9, 5));
        let place = |at: usize| (at / 64 * (at % 64)) as f32;
        let kept = |at: usize, value: f32| if random.uniform(at as u64) < 0.25 { 0.0 } else { value / 0.75 };
        for (at, value) in dropped_first.to_vec().unwrap().into_iter().enumerate() {
            assert!((value - kept(at, place(at)) - at as f32).abs() < 1e-3, "at {at}: {value}");
        }
        for (at, value) in added_first.to_vec().unwrap().into_iter().enumerate() {
            assert!((value - kept(at, place(at) + at as f32)).abs() < 1e-3, "at {at}: {value}");
        }
        for (at, value) in twice.to_vec().unwrap().into_iter().enumerate() {
            assert!((value - kept(at, kept(at, place(at)))).abs() < 2e-3, "at {at}: {value}");
        }
    }

    #[test]
    fn a_norms_gradient_is_added_to_that_of_what_went_past_it() {
        for name in device_names() {
            for width in [6, 64, 4100] {
                let gradient = |config: &Config| {
                    let device = Device::open_with(name, config).unwrap();
                    let normal = |shape: &[usize]| {
                        let values: Vec<f32> =
                            (0..shape.iter().product::<usize>() as u64).map(|at| Philox::new(1).normal(at)).collect();
                        device.tensor(&values, shape)
                    };
                    let x = normal(&[5, width]).requiring_grad();
                    let y = ops::add(&x, &ops::rms_norm(&x, &normal(&[width]), 1e-5));
                    let gradients = y.backward_from(&normal(&[5, width]));
                    let before = device.recorded();
                    let after = finish(before.clone(), &reads(&before, |_| true)).dispatches();
                    assert_eq!(before.dispatches() - after, 1, "{before:?}");
                    gradients.get(&x).unwrap().to_vec().unwrap()
                };
                let unfused = gradient(&Config { no_fusion: true, guards: true, ..Config::default() });
                for (a, b) in gradient(&Config { guards: true, ..Config::default() }).iter().zip(&unfused) {
                    // The compiler may contract a product and the sum behind it.
                    assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{name}, {width}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn a_product_that_is_read_twice_or_kept_or_meets_a_later_result_is_written() {
        let device = Device::cpu();
        let a = device.tensor(&[1.0, 2.0, 3.0, 4.0], [2, 2]);
        let kept = ops::matmul(&a, &a);
        let sums = [ops::add(&kept, &a), ops::add(&ops::matmul(&a, &a), &ops::exp(&a))];
        let twice = ops::matmul(&a, &a);
        let doubled = ops::add(&twice, &twice);
        drop(twice);
        assert_eq!(dispatches(&device), (7, 7));
        drop((kept, sums, doubled));
    }
}
