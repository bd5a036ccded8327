//! Groups dispatches of one shader that do not wait for each other: a GPU runs them as one, so that what it takes to begin a dispatch is
//! paid once and small ones fill the device together.

use rustc_hash::FxHashMap;

use crate::buffer::BufferRef;
use crate::kernel::{Access, AnyKernel, Cost};
use crate::recording::{Command, Group, Recording};

/// Commands past which nothing is brought forward: a result that waits long for its readers takes memory that others could have.
const FAR: usize = 128;
/// Bytes of a result that may be brought forward past what made room for it.
const LITTLE: usize = 4 << 20;
/// Work of a group: more gains nothing, and must end before a driver's watchdog ends it, which half a second's work of the slowest GPUs
/// is far from (`device/gpu/encoding.rs`).
const MOST_WORK: Cost = Cost { flops: 16_000_000_000, bytes: 1_600_000_000 };

/// The recording in which every dispatch runs as early as it can with one by the same shader: beside it, or behind it where it adds that
/// one's result to its own, which the same invocations write. `shader` says by which a kernel runs, if it can, and `bindings` how many
/// buffers the device can give one.
pub fn group(
    recording: Recording,
    mut shader: impl FnMut(&'static AnyKernel, &[u32]) -> Option<usize>,
    bindings: usize,
) -> Recording {
    let mut out: Vec<Command> = Vec::with_capacity(recording.commands.len());
    // Bytes that were freed before each of them, and before the next.
    let (mut freed, mut freed_now) = (Vec::with_capacity(recording.commands.len()), 0);
    let mut touched = Touched::default();
    // Where groups stand.
    let mut places: FxHashMap<(&str, usize, u32), Vec<usize>> = FxHashMap::default();
    for command in recording.commands {
        let far = out.len().saturating_sub(FAR);
        let last = touched.last_in_the_way_of(&command, far);
        if let Command::Free { buffer } = &command {
            freed_now += buffer.whole * buffer.dtype.size();
        }
        let kind = Kind::of(&command, &mut shader);
        let mut at = out.len();
        if let (Some(kind), Command::Dispatch { params, buffers, .. }) = (kind, &command) {
            let places = places.entry(kind.key()).or_default();
            let first = last.unwrap_or(far).max(far);
            let near = &places[places.partition_point(|&place| place < first)..];
            let written: usize = command.writes().map(|buffer| buffer.elements * buffer.dtype.size()).sum();
            let takes_room = |place: usize| written > LITTLE && freed_now - freed[place] >= written;
            let joined = near.iter().copied().find(|&place| {
                let Command::Group { group, buffers: all } = &mut out[place] else { return false };
                !takes_room(place) && kind.join((params, buffers), (group, all), last == Some(place), bindings)
            });
            match joined {
                Some(place) => at = place,
                None => places.push(at),
            }
        }
        touched.add(at, &command, far);
        if at == out.len() {
            freed.push(freed_now);
            out.push(match (kind, &command) {
                (Some(kind), Command::Dispatch { params, buffers, .. }) => kind.alone(params, buffers),
                _ => command,
            });
        }
    }
    Recording { commands: out.into_iter().map(dispatch_if_alone).collect() }
}

/// A group of one member as the dispatch that it was.
fn dispatch_if_alone(command: Command) -> Command {
    match command {
        Command::Group { group, buffers } if group.members().count() == 1 => {
            group.dispatches(&buffers).next().expect("a group has members")
        }
        other => other,
    }
}

/// What the commands so far did to each buffer, and where they stand.
#[derive(Default)]
struct Touched(FxHashMap<u64, Vec<(usize, Access, BufferRef)>>);

impl Touched {
    /// Where the last command stands that must come before this one.
    fn last_in_the_way_of(&self, command: &Command, far: usize) -> Option<usize> {
        let before = |(access, buffer): (Access, BufferRef)| {
            let is_in_the_way = move |(at, other_access, other): &&(usize, Access, BufferRef)| {
                *at >= far && (access != Access::Read || *other_access != Access::Read) && other.overlaps(&buffer)
            };
            self.0.get(&buffer.id)?.iter().filter(is_in_the_way).map(|(at, ..)| *at).max()
        };
        command.accesses().filter_map(before).max()
    }

    fn add(&mut self, at: usize, command: &Command, far: usize) {
        for (access, buffer) in command.accesses() {
            let of_buffer = self.0.entry(buffer.id).or_default();
            of_buffer.retain(|(before, ..)| *before >= far);
            of_buffer.push((at, access, buffer));
        }
    }
}

/// What all dispatches of a group have in common.
#[derive(Clone, Copy)]
struct Kind {
    kernel: &'static AnyKernel,
    shader: usize,
    /// See [`Kernel::grouped_by`](crate::kernel::Kernel::grouped_by).
    by: u32,
}

impl Kind {
    fn of(command: &Command, shader: impl FnOnce(&'static AnyKernel, &[u32]) -> Option<usize>) -> Option<Kind> {
        let Command::Dispatch { kernel, params, .. } = command else { return None };
        if kernel.shaders == 0 || kernel.params_size > wgtune_shaders::PARAMS_STRIDE {
            return None;
        }
        Some(Kind { kernel, by: (kernel.grouped_by)(bytemuck::cast_slice(params))?, shader: shader(kernel, params)? })
    }

    fn key(&self) -> (&'static str, usize, u32) {
        // A kernel may lie at several places: its name is one.
        (self.kernel.name, self.shader, self.by)
    }

    /// A group of one dispatch.
    fn alone(&self, params: &[u32], own: &[BufferRef]) -> Command {
        let (mut group, mut buffers) = (Group::new(self.kernel, self.shader), Vec::with_capacity(own.len()));
        group.add(None, params, own, &mut buffers, usize::MAX);
        Command::Group { group, buffers }
    }

    /// Makes a dispatch one of a group, behind one of its lanes if it depends on the group, or beside them all. False if it cannot be.
    fn join(
        &self,
        (params, own): (&[u32], &[BufferRef]),
        (group, buffers): (&mut Group, &mut Vec<BufferRef>),
        depends: bool,
        bindings: usize,
    ) -> bool {
        let lane = if depends { self.lane((params, own), (group, buffers)) } else { None };
        let is_full = group.members().count() == Group::MOST;
        if is_full || depends && lane.is_none() || self.clashes(own, (group, buffers), depends) {
            return false;
        }
        let cost = |params: &[u32]| (self.kernel.cost)(bytemuck::cast_slice(params));
        let costs = || group.members().map(|member| cost(&member.params)).chain([cost(params)]);
        let is_short = costs().map(|cost| cost.flops).sum::<u64>() <= MOST_WORK.flops
            && costs().map(|cost| cost.bytes).sum::<u64>() <= MOST_WORK.bytes;
        is_short && group.add(lane, params, own, buffers, bindings)
    }

    /// The lane whose last result this one adds to its own, each element by the invocation that wrote it.
    fn lane(&self, (params, own): (&[u32], &[BufferRef]), (group, buffers): (&Group, &[BufferRef])) -> Option<usize> {
        let epilogue = self.kernel.epilogue.as_ref()?;
        let shared = |params: &[u32]| (epilogue.shared)(bytemuck::cast_slice(params));
        group.lanes.iter().position(|lane| {
            lane.last().is_some_and(|last| {
                buffers[last.buffers[epilogue.result]] == own[epilogue.residual] && shared(&last.params) == shared(params)
            })
        })
    }

    /// Whether it needs the group to be over for another buffer than what it may add. No device lets a dispatch read one part of a buffer
    /// and write another.
    fn clashes(&self, own: &[BufferRef], (group, buffers): (&Group, &[BufferRef]), adds: bool) -> bool {
        let added = self.kernel.epilogue.as_ref().filter(|_| adds).map(|epilogue| epilogue.residual);
        let with = |access: &Access, buffer: &BufferRef| {
            group.access.iter().zip(buffers).any(|(other_access, other)| match (access, other_access) {
                (Access::Read, Access::Read) => false,
                (Access::Read, _) | (_, Access::Read) => other.id == buffer.id,
                (_, _) => other.overlaps(buffer),
            })
        };
        let own = self.kernel.access.iter().zip(own).enumerate();
        own.filter(|(binding, _)| Some(*binding) != added).any(|(_, (access, buffer))| with(access, buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Traits;
    use crate::{Device, Tensor, ops};

    /// How many members the lanes of each dispatch have, in order.
    fn lanes(device: &Device, bindings: usize) -> Vec<Vec<usize>> {
        let traits = Traits::default();
        let shader = |kernel: &'static AnyKernel, params: &[u32]| Some((kernel.choose)(bytemuck::cast_slice(params), &traits));
        let recording = crate::passes::finish(device.recorded(), &crate::passes::reads(&device.recorded(), |_| true));
        let grouped = group(recording, shader, bindings);
        let of_command = |command: &Command| match command {
            Command::Group { group, .. } => Some(group.lanes.iter().map(Vec::len).collect()),
            _ => command.is_dispatched().then(|| vec![1]),
        };
        grouped.commands.iter().filter_map(of_command).collect()
    }

    fn tensors<const N: usize>(device: &Device) -> [Tensor; N] {
        std::array::from_fn(|at| device.tensor(&vec![at as f32; 64 * 64], [64, 64]))
    }

    #[test]
    fn products_of_one_input_run_side_by_side_and_what_needs_them_behind() {
        let device = Device::cpu();
        let [x, a, b, c] = tensors(&device);
        let [p, q] = [&a, &b].map(|weight| ops::matmul(&x, weight));
        let r = ops::matmul(&p, &c);
        let late = ops::matmul(&x, &c);
        let both = ops::matmul(&r, &q);
        assert_eq!(lanes(&device, 30), [vec![1, 1, 1], vec![1], vec![1]]);
        // Two of them have nine bindings: x as five, two weights, and two results.
        assert_eq!(lanes(&device, 9), [vec![1, 1], vec![1], vec![1], vec![1]]);
        drop((late, both));
    }

    #[test]
    fn a_sum_of_products_is_a_lane() {
        let device = Device::cpu();
        let [x, y, z, a, b, c] = tensors(&device);
        let sum = ops::add(&ops::add(&ops::matmul(&x, &a), &ops::matmul(&y, &b)), &ops::matmul(&z, &c));
        let other = ops::matmul(&x, &b);
        assert_eq!(lanes(&device, 30), [vec![3, 1]]);
        drop((sum, other));
    }

    #[test]
    fn what_is_written_in_between_or_read_by_another_keeps_its_order() {
        let device = Device::cpu();
        let [x, a] = tensors(&device);
        let before = ops::matmul(&x, &a);
        x.replace(&[0; 4 * 64 * 64]);
        let after = ops::matmul(&x, &a);
        // It reads the sum elsewhere too.
        let squared = ops::add(&ops::matmul(&after, &a), &after);
        assert_eq!(lanes(&device, 30), [vec![1], vec![1], vec![1]]);
        drop((before, squared));
    }

    #[test]
    fn what_takes_the_memory_of_the_one_before_it_waits_for_that() {
        let device = Device::cpu();
        let [x, weight] = [[1024, 64], [64, 2048]].map(|shape| device.empty(shape, crate::DType::F32));
        let sums: Vec<Tensor> = (0..3).map(|_| ops::sum_axis(&ops::matmul(&x, &weight), 0)).collect();
        assert_eq!(lanes(&device, 30), vec![[1]; 6]);
        drop(sums);
    }
}
