//! Groups dispatches of one shader that do not wait for each other: a GPU runs them as one, so that what it takes to begin a dispatch is
//! paid once and small ones fill the device together.

use rustc_hash::FxHashMap;

use crate::buffer::BufferRef;
use crate::kernel::{Access, AnyKernel};
use crate::recording::{Command, Group, Recording};

/// Commands past which nothing is brought forward: a result that waits long for its readers takes memory that others could have.
const FAR: usize = 128;

/// A dispatch of more workgroups fills any GPU for long enough on its own.
const MANY: u32 = 4096;

/// The recording in which every dispatch runs as early as it can with one by the same shader: beside it, or behind it where it adds that
/// one's result to its own, which the same invocations write. `shader` says by which a kernel runs, and `bindings` how many buffers the
/// device can give one.
pub fn group(recording: Recording, mut shader: impl FnMut(&'static AnyKernel, &[u32]) -> usize, bindings: usize) -> Recording {
    let mut out: Vec<Command> = Vec::with_capacity(recording.commands.len());
    let mut touched = Touched::default();
    // Where commands of a kernel and shader stand.
    let mut alike: FxHashMap<(*const AnyKernel, usize), Vec<usize>> = FxHashMap::default();
    for command in recording.commands {
        let far = out.len().saturating_sub(FAR);
        let last = touched.last_in_the_way_of(&command, far);
        let mut at = out.len();
        if let Some(candidate) = Candidate::of(&command, &mut shader) {
            let places = alike.entry((candidate.kernel, candidate.shader)).or_default();
            let first = last.unwrap_or(far).max(far);
            let near = &places[places.partition_point(|&place| place < first)..];
            let joined =
                near.iter().find_map(|&place| Some((place, candidate.join(&out[place], last == Some(place), bindings)?)));
            match joined {
                Some((place, group)) => (at, out[place]) = (place, group),
                None => places.push(at),
            }
        }
        touched.add(at, &command, far);
        if at == out.len() {
            out.push(command);
        }
    }
    Recording { commands: out }
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

/// A dispatch that could be one of a group.
struct Candidate<'a> {
    kernel: &'static AnyKernel,
    shader: usize,
    params: &'a [u32],
    buffers: &'a [BufferRef],
}

impl<'a> Candidate<'a> {
    fn of(command: &'a Command, shader: impl FnOnce(&'static AnyKernel, &[u32]) -> usize) -> Option<Candidate<'a>> {
        let Command::Dispatch { kernel, params, buffers } = command else { return None };
        if kernel.shaders == 0 || !kernel.groups || kernel.params_size > wgtune_shaders::PARAMS_STRIDE {
            return None;
        }
        let candidate = Candidate { kernel, shader: shader(kernel, params), params, buffers };
        (candidate.workgroups() <= MANY).then_some(candidate)
    }

    fn workgroups(&self) -> u32 {
        (self.kernel.workgroups)(bytemuck::cast_slice(self.params), self.shader).iter().product()
    }

    /// What a command by the same shader becomes if this one runs with it: behind one of its lanes or beside them all.
    fn join(&self, command: &Command, depends: bool, bindings: usize) -> Option<Command> {
        let (mut group, mut buffers) = match command {
            Command::Group { group, buffers } => (group.clone(), buffers.clone()),
            Command::Dispatch { params, buffers, .. } => {
                let (mut group, mut all) = (Group::new(self.kernel, self.shader), Vec::new());
                group.add(None, params, buffers, &mut all);
                (group, all)
            }
            _ => return None,
        };
        let lane = if depends { Some(self.lane(&group, &buffers)?) } else { None };
        if group.members().count() == Group::MOST || self.clashes(&group, &buffers, lane.is_some()) {
            return None;
        }
        group.add(lane, self.params, self.buffers, &mut buffers);
        (buffers.len() <= bindings).then_some(Command::Group { group, buffers })
    }

    /// The lane whose last result this one adds to its own, each element by the invocation that wrote it.
    fn lane(&self, group: &Group, buffers: &[BufferRef]) -> Option<usize> {
        let epilogue = self.kernel.epilogue.as_ref()?;
        let shared = |params: &[u32]| (epilogue.shared)(bytemuck::cast_slice(params));
        group.lanes.iter().position(|lane| {
            lane.last().is_some_and(|last| {
                buffers[last.buffers[epilogue.result]] == self.buffers[epilogue.residual]
                    && shared(&last.params) == shared(self.params)
            })
        })
    }

    /// Whether it needs the group to be over for another buffer than what it may add. No device lets a dispatch read one part of a buffer
    /// and write another.
    fn clashes(&self, group: &Group, buffers: &[BufferRef], adds: bool) -> bool {
        let added = self.kernel.epilogue.as_ref().filter(|_| adds).map(|epilogue| epilogue.residual);
        let with = |access: &Access, buffer: &BufferRef| {
            group.access.iter().zip(buffers).any(|(other_access, other)| match (access, other_access) {
                (Access::Read, Access::Read) => false,
                (Access::Read, _) | (_, Access::Read) => other.id == buffer.id,
                (_, _) => other.overlaps(buffer),
            })
        };
        let own = self.kernel.access.iter().zip(self.buffers).enumerate();
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
        let shader = |kernel: &'static AnyKernel, params: &[u32]| (kernel.choose)(bytemuck::cast_slice(params), &traits);
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
        // Two of them have seven bindings: x as four, two weights, and two results.
        assert_eq!(lanes(&device, 8), [vec![1, 1], vec![1], vec![1], vec![1]]);
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
}
