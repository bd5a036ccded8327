//! Fuses pointwise dispatches: where one computes elements from elements that another has just computed, both become one, and
//! what only passes between them never reaches memory. What comes before the first may be a kernel that writes rows.

use rustc_hash::FxHashSet;

use super::Reads;
use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel};
use crate::recording::{Chain, Command, Head, Recording, Step, Value};

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
    head: Option<Head>,
    head_buffers: Vec<BufferRef>,
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
        if let Some(head) = head(&command) {
            self.close();
            return self.group.begin(head, command);
        }
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
        if group.originals.len() < 2 {
            self.out.extend(group.originals);
            return self.out.extend(group.frees.into_iter().map(|buffer| Command::Free { buffer }));
        }
        // A result stays inside if all that read it are here, and its end too.
        let inside = |buffer: &BufferRef| {
            freed.contains(&buffer.id) && self.reads.get(&buffer.id) == Some(group.reads.get(&buffer.id).unwrap_or(&0))
        };
        let outputs: Vec<usize> = (0..group.steps.len()).filter(|&step| !inside(&group.results[step])).collect();
        let written: Vec<BufferRef> = outputs.iter().map(|&step| group.results[step]).collect();
        let mut buffers = std::mem::take(&mut group.head_buffers);
        buffers.extend(&group.inputs);
        buffers.extend(&written);
        let mut access = group.head.as_ref().map_or(Vec::new(), |head| head.kernel.access.to_vec());
        access.resize(buffers.len() - written.len(), Access::Read);
        access.resize(buffers.len(), Access::Write);
        let kept = |buffer: &BufferRef| !group.results.iter().any(|result| result.id == buffer.id) || written.contains(buffer);
        let frees: Vec<Command> =
            group.frees.iter().filter(|&buffer| kept(buffer)).map(|&buffer| Command::Free { buffer }).collect();
        let chain = Chain { head: group.head, elements: group.elements, steps: group.steps, outputs, access };
        self.out.push(Command::Fused { chain, buffers });
        self.out.extend(frees);
    }
}

/// The head that a chain can have in this command.
pub(super) fn head(command: &Command) -> Option<Head> {
    let Command::Dispatch { kernel, params, buffers } = command else { return None };
    let rowwise = kernel.rowwise.as_ref()?;
    let [rows, width] = (rowwise.size)(bytemuck::cast_slice(params));
    let strides = (rowwise.strides)(bytemuck::cast_slice(params));
    let fits =
        |(buffer, &stride): (&BufferRef, &usize)| buffer.dtype == DType::F32 && (stride == 0 || buffer.elements == rows * stride);
    let is_whole = rows > 0 && width > 0 && width.is_multiple_of(4) && buffers.iter().zip(&strides).all(fits);
    is_whole.then(|| Head { kernel, params: params.clone() })
}

/// A dispatch that can be fused.
pub(super) struct Candidate {
    kernel: &'static AnyKernel,
    params: Vec<u32>,
    elements: usize,
    pub inputs: Vec<BufferRef>,
    pub output: BufferRef,
}

impl Candidate {
    pub fn of(command: &Command) -> Option<Candidate> {
        let Command::Dispatch { kernel, params, buffers } = command else { return None };
        let pointwise = kernel.pointwise.as_ref()?;
        let elements = (kernel.elementwise.as_ref()?.elements)(bytemuck::cast_slice(params))?;
        let numbers = (pointwise.numbers)(bytemuck::cast_slice(params));
        let (output, inputs) = buffers.split_last()?;
        let is_f32 = buffers.iter().all(|buffer| buffer.dtype == DType::F32);
        // What fills only a part of its buffer, or starts somewhere within, stays on its own.
        let length = |input: usize| if numbers >> input & 1 == 1 { 1 } else { elements };
        let fits = inputs.iter().enumerate().all(|(at, input)| input.elements == length(at));
        let is_whole = output.elements == elements && !output.is_part() && elements > 0 && fits;
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
    fn begin(&mut self, head: Head, original: Command) {
        self.head_buffers = original.accesses().map(|(_, buffer)| buffer).collect();
        self.elements = self.head_buffers[head.rowwise().result].elements;
        self.head = Some(head);
        self.originals.push(original);
    }

    fn accepts(&self, candidate: &Candidate) -> bool {
        let is_result = |buffer: &BufferRef| self.value(buffer).is_some();
        let new_inputs = candidate.inputs.iter().filter(|input| !is_result(input) && !self.inputs.contains(input)).count();
        self.is_empty()
            || candidate.elements == self.elements
                && candidate.inputs.iter().any(is_result)
                && self.head_buffers.len() + self.inputs.len() + new_inputs + self.results.len() < MOST_BUFFERS
                && self.steps.len() < MOST_STEPS
                && self.head_buffers.iter().all(|buffer| buffer.id != candidate.output.id)
    }

    /// What a step is given that reads this buffer, if it is a result of the group's.
    fn value(&self, buffer: &BufferRef) -> Option<Value> {
        let step = self.results.iter().position(|result| result.id == buffer.id).map(Value::Step);
        let result = self.head.as_ref().map(|head| self.head_buffers[head.rowwise().result]);
        step.or_else(|| result.filter(|result| result.id == buffer.id).map(|_| Value::Head))
    }

    fn add(&mut self, candidate: Candidate, original: Command) {
        self.elements = candidate.elements;
        let inputs = candidate
            .inputs
            .iter()
            .map(|input| match self.value(input) {
                Some(value) => {
                    *self.reads.entry(input.id).or_default() += 1;
                    value
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
        self.originals.is_empty()
    }

    fn touches(&self, buffer: &BufferRef) -> bool {
        self.head_buffers.iter().chain(&self.inputs).chain(&self.results).any(|touched| touched.id == buffer.id)
    }

    /// Whether a buffer is written by the head or would be by a step.
    fn writes(&self, buffer: &BufferRef) -> bool {
        let of_head = self.head.iter().flat_map(|head| head.kernel.access.iter().zip(&self.head_buffers));
        let by_head = of_head.filter(|(access, _)| **access != Access::Read).map(|(_, written)| written);
        by_head.chain(&self.results).any(|written| written.id == buffer.id)
    }

    /// Whether a command that was recorded after the group may not run before it.
    fn is_in_the_way_of(&self, command: &Command) -> bool {
        command.reads().any(|buffer| self.writes(&buffer)) || command.writes().any(|buffer| self.touches(&buffer))
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
            Command::Fused { chain, .. } => Some(usize::from(chain.head.is_some()) + chain.steps.len()),
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
        let Some(Command::Fused { chain, .. }) = fused.commands.iter().find(|c| matches!(c, Command::Fused { .. })) else {
            panic!()
        };
        assert_eq!(chain.outputs, [0, 1, 2], "{fused:?}");
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

    #[test]
    fn dropouts_of_a_norm_are_one_dispatch_with_it() {
        let device = Device::cpu();
        let x = device.tensor(&[0.5; 64], [8, 8]);
        let results = behind_a_norm(&x, &device.tensor(&[1.0; 8], [8]));
        assert_eq!(steps(&fused(&device)), [4, 1]);
        drop(results);
    }

    /// Three dropouts of a norm's result, which something else reads too.
    fn behind_a_norm(x: &Tensor, weight: &Tensor) -> Vec<Tensor> {
        let y = ops::rms_norm(x, weight, 1e-5);
        let mut results: Vec<Tensor> = (0..3).map(|stream| ops::dropout(&y, Philox::new(stream), 0.25)).collect();
        results.push(ops::matmul(&y.transpose(), &y));
        results
    }

    #[test]
    fn fused_and_unfused_norms_agree_on_every_device() {
        for name in device_names() {
            // Rows that are vectors or not, few and many of a chunk and of a team.
            for shape in [[1, 4], [3, 6], [3, 64], [130, 8], [5, 1000], [37, 4100]] {
                let run = |config: &Config| {
                    let device = Device::open_with(name, config).unwrap();
                    let tensor = |shape: &[usize], seed: u64| {
                        let count: usize = shape.iter().product();
                        let values: Vec<f32> = (0..count).map(|at| Philox::new(seed).normal(at as u64)).collect();
                        device.tensor(&values, shape)
                    };
                    let results = behind_a_norm(&tensor(&shape, 1), &tensor(&shape[1..], 2));
                    results[..3].iter().map(|result| result.to_vec().unwrap()).collect::<Vec<_>>()
                };
                let (fused, unfused) =
                    (run(&Config::default()), run(&Config { no_fusion: true, guards: true, ..Config::default() }));
                for (a, b) in fused.iter().flatten().zip(unfused.iter().flatten()) {
                    // The compiler may contract other products and sums into fused ones.
                    assert!((a - b).abs() <= 4e-6 * b.abs().max(1.0), "{name}, {shape:?}: {a} and {b}");
                }
            }
        }
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
