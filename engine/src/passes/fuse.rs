//! Fuses pointwise dispatches: where one computes elements from elements that another has just computed, both become one, and
//! what only passes between them never reaches memory.

use rustc_hash::FxHashSet;

use super::Reads;
use crate::dtype::DType;
use crate::kernel::AnyKernel;
use crate::recording::{BufferRef, Command, Recording, Step, Value};

/// Buffers that a fused dispatch may be given: what every device allows.
const MOST_BUFFERS: usize = 8;
/// Steps that it may have: their parameters fit in a uniform block.
const MOST_STEPS: usize = 24;

/// The recording with chains of pointwise dispatches fused.
pub fn fuse(recording: Recording, reads: &Reads) -> Recording {
    let mut fuser = Fuser { reads, out: Vec::with_capacity(recording.commands.len()), group: Group::default() };
    recording.commands.into_iter().for_each(|command| fuser.take(command));
    fuser.close();
    Recording { commands: fuser.out }
}

/// Dispatches that are about to be fused, and what has to wait for them.
#[derive(Default)]
struct Group {
    elements: usize,
    /// What the steps read from memory.
    inputs: Vec<BufferRef>,
    steps: Vec<Step>,
    /// The buffer that each step would write.
    results: Vec<BufferRef>,
    /// The dispatches as they were.
    originals: Vec<Command>,
    frees: Vec<BufferRef>,
    /// How often the steps read each result.
    reads: Reads,
}

struct Fuser<'a> {
    reads: &'a Reads,
    out: Vec<Command>,
    group: Group,
}

impl Fuser<'_> {
    fn take(&mut self, command: Command) {
        if let Some(step) = Candidate::of(&command) {
            if !self.group.accepts(&step) {
                self.close();
            }
            return self.group.add(step, command);
        }
        match command {
            command if self.group.is_empty() => self.out.push(command),
            Command::Free { buffer } if self.group.touches(&buffer) => self.group.frees.push(buffer),
            command => {
                if self.group.is_in_the_way_of(&command) {
                    self.close();
                }
                self.out.push(command);
            }
        }
    }

    /// Ends the group: its steps as one dispatch, then the memory that waited for it.
    fn close(&mut self) {
        let mut group = std::mem::take(&mut self.group);
        let freed: FxHashSet<u64> = group.frees.iter().map(|buffer| buffer.id).collect();
        if group.steps.len() < 2 {
            self.out.extend(group.originals);
            return self.out.extend(group.frees.into_iter().map(|buffer| Command::Free { buffer }));
        }
        // A result stays inside if all that read it are here, and its end too.
        let inside = |buffer: &BufferRef| {
            freed.contains(&buffer.id) && self.reads.get(&buffer.id) == Some(group.reads.get(&buffer.id).unwrap_or(&0))
        };
        let outputs: Vec<usize> = (0..group.steps.len()).filter(|&step| !inside(&group.results[step])).collect();
        let written: Vec<BufferRef> = outputs.iter().map(|&step| group.results[step]).collect();
        let mut buffers = std::mem::take(&mut group.inputs);
        buffers.extend(&written);
        let kept = |buffer: &BufferRef| !group.results.iter().any(|result| result.id == buffer.id) || written.contains(buffer);
        let frees: Vec<Command> =
            group.frees.iter().filter(|&buffer| kept(buffer)).map(|&buffer| Command::Free { buffer }).collect();
        self.out.push(Command::Fused { elements: group.elements, steps: group.steps, outputs, buffers });
        self.out.extend(frees);
    }
}

/// A dispatch that can be fused.
struct Candidate {
    kernel: &'static AnyKernel,
    params: Vec<u32>,
    elements: usize,
    inputs: Vec<BufferRef>,
    output: BufferRef,
}

impl Candidate {
    fn of(command: &Command) -> Option<Candidate> {
        let Command::Dispatch { kernel, params, buffers } = command else { return None };
        let pointwise = kernel.pointwise.as_ref()?;
        let elements = (pointwise.elements)(bytemuck::cast_slice(params))?;
        let numbers = (pointwise.numbers)(bytemuck::cast_slice(params));
        let (output, inputs) = buffers.split_last()?;
        let is_f32 = buffers.iter().all(|buffer| buffer.dtype == DType::F32);
        // What fills only a part of its buffer, or starts somewhere within, stays on its own.
        let length = |input: usize| if numbers >> input & 1 == 1 { 1 } else { elements };
        let fits = inputs.iter().enumerate().all(|(at, input)| input.elements == length(at));
        let is_whole = output.elements == elements && elements > 0 && fits;
        (is_f32 && is_whole).then(|| Candidate {
            kernel,
            params: params.clone(),
            elements,
            inputs: inputs.to_vec(),
            output: *output,
        })
    }
}

impl Group {
    fn accepts(&self, candidate: &Candidate) -> bool {
        let is_result = |buffer: &BufferRef| self.results.iter().any(|result| result.id == buffer.id);
        let new_inputs = candidate.inputs.iter().filter(|input| !is_result(input) && !self.inputs.contains(input)).count();
        self.is_empty()
            || candidate.elements == self.elements
                && candidate.inputs.iter().any(is_result)
                && self.inputs.len() + new_inputs + self.results.len() < MOST_BUFFERS
                && self.steps.len() < MOST_STEPS
    }

    fn add(&mut self, candidate: Candidate, original: Command) {
        self.elements = candidate.elements;
        let inputs = candidate
            .inputs
            .iter()
            .map(|input| match self.results.iter().position(|result| result.id == input.id) {
                Some(step) => {
                    *self.reads.entry(input.id).or_default() += 1;
                    Value::Step(step)
                }
                None => Value::Buffer(self.inputs.iter().position(|known| known == input).unwrap_or_else(|| {
                    self.inputs.push(*input);
                    self.inputs.len() - 1
                })),
            })
            .collect();
        self.steps.push(Step { kernel: candidate.kernel, params: candidate.params, inputs });
        self.results.push(candidate.output);
        self.originals.push(original);
    }

    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn touches(&self, buffer: &BufferRef) -> bool {
        self.inputs.iter().chain(&self.results).any(|touched| touched.id == buffer.id)
    }

    /// Whether a command that was recorded after the group may not run before it.
    fn is_in_the_way_of(&self, command: &Command) -> bool {
        let reads_a_result = command.reads().any(|buffer| self.results.iter().any(|result| result.id == buffer.id));
        reads_a_result || command.writes().any(|buffer| self.touches(&buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Config;
    use crate::passes::reads;
    use crate::random::Philox;
    use crate::testing::device_names;
    use crate::{Device, Tensor, ops};

    fn fused(device: &Device) -> Recording {
        let recorded = device.recorded();
        let reads = reads(&recorded, |_| true);
        fuse(recorded, &reads)
    }

    fn steps(recording: &Recording) -> Vec<usize> {
        let count = |command: &Command| match command {
            Command::Fused { steps, .. } => Some(steps.len()),
            Command::Dispatch { .. } => Some(1),
            _ => None,
        };
        recording.commands.iter().filter_map(count).collect()
    }

    #[test]
    fn a_chain_becomes_one_dispatch_and_its_middle_never_exists() {
        let device = Device::cpu();
        let x = device.tensor(&[0.5; 100], [100]);
        let y = ops::add(&ops::exp(&ops::scale(&x, 2.0)), &x);
        let fused = fused(&device);
        assert_eq!(steps(&fused), [3], "{fused:?}");
        let Some(Command::Fused { buffers, .. }) = fused.commands.iter().find(|c| matches!(c, Command::Fused { .. })) else {
            panic!()
        };
        assert_eq!(buffers.len(), 2, "the input and the result: {fused:?}");
        drop(y);
    }

    #[test]
    fn what_is_still_held_or_read_elsewhere_is_written() {
        let device = Device::cpu();
        let x = device.tensor(&[0.5; 64], [8, 8]);
        let middle = ops::exp(&x);
        let y = ops::sqrt(&middle);
        let read_by_another = ops::matmul(&ops::neg(&y), &y);
        let fused = fused(&device);
        assert_eq!(steps(&fused), [3, 1], "{fused:?}");
        let Some(Command::Fused { outputs, .. }) = fused.commands.iter().find(|c| matches!(c, Command::Fused { .. })) else {
            panic!()
        };
        assert_eq!(*outputs, [0, 1, 2], "{fused:?}");
        drop((middle, read_by_another));
    }

    #[test]
    fn an_update_of_an_input_in_between_ends_the_chain() {
        let device = Device::cpu();
        let x = device.tensor(&[1.0; 4], [4]);
        let y = ops::exp(&x);
        x.replace(&[0; 16]);
        let z = ops::add(&y, &x);
        assert_eq!(steps(&fused(&device)), [1, 1]);
        assert!((z.to_vec().unwrap()[0] - 1f32.exp()).abs() < 1e-6, "the exponential of what x was, plus 0");
    }

    /// A chain with everything in it: one number for all elements, dropout, a value used twice, a result that is kept.
    fn chain(x: &Tensor) -> Vec<Tensor> {
        let factor = x.device().tensor(&[0.75], [1]);
        let y = ops::dropout(&ops::mul(&ops::gelu(x), &factor), Philox::new(5), 0.25);
        let gate = ops::swiglu(&y, &ops::sub(&y, x));
        let z = ops::maximum(&ops::scale(&gate, -1.5), &ops::tanh(&y));
        vec![y, z]
    }

    #[test]
    fn fused_and_unfused_agree_on_every_device() {
        for name in device_names() {
            // Around vectors of four, and past a chunk and a task of the CPU's.
            for size in [1, 3, 4, 5, 257, 4095, 4097, 40_001] {
                let run = |config: &Config| {
                    let device = Device::open_with(name, config).unwrap();
                    let values: Vec<f32> = (0..size).map(|at| Philox::new(1).normal(at as u64)).collect();
                    let results = chain(&device.tensor(&values, [size]));
                    results.iter().map(|result| result.to_vec().unwrap()).collect::<Vec<_>>()
                };
                let (fused, unfused) =
                    (run(&Config::default()), run(&Config { no_fusion: true, guards: true, ..Config::default() }));
                for (a, b) in fused.iter().flatten().zip(unfused.iter().flatten()) {
                    // The compiler may contract other products and sums into fused ones.
                    assert!((a - b).abs() <= 4e-6 * b.abs().max(1.0), "{name}, {size}: {a} and {b}");
                }
            }
        }
    }
}
