//! Fused commands: the head and all steps over a chunk that the cache holds, then the next chunk.

use std::ops::Range;

use rayon::prelude::*;

use super::RunTwin;
use crate::kernel::{Access, Io};
use crate::recording::{Chain, Value};

/// Elements of a chunk, or one row: few enough that a twin does not share them out once more, and that a few steps' results stay
/// in the first two levels of the cache.
const CHUNK: usize = 4096;

/// Runs a chain that has so many buffers.
pub(super) fn run<R: RunTwin>(chain: &Chain, io: &mut Io<R>, buffers: usize) {
    let width = chain.head.as_ref().map_or(1, |head| (head.rowwise().size)(bytemuck::cast_slice(&head.params))[1]);
    let rows = (CHUNK / width).max(1);
    let chunk = rows * width;
    let bindings: Vec<usize> = (0..buffers).collect();
    let [of_head, read, written] = chain.split(&bindings);
    let inputs: Vec<&[R]> = read.iter().map(|&binding| io.real(binding)).collect();
    let mut tasks: Vec<Task<R>> = (0..chain.elements.div_ceil(chunk)).map(|_| Task::default()).collect();
    if let Some(head) = &chain.head {
        let strides = (head.rowwise().strides)(bytemuck::cast_slice(&head.params));
        for ((&binding, stride), access) in of_head.iter().zip(strides).zip(head.kernel.access) {
            match (access, stride) {
                (Access::Read, 0) => {
                    let shared = io.real(binding);
                    tasks.iter_mut().for_each(|task| task.head.push(Part::Read(shared)));
                }
                (Access::Read, _) => {
                    let parts = io.real(binding).chunks(rows * stride);
                    tasks.iter_mut().zip(parts).for_each(|(task, part)| task.head.push(Part::Read(part)));
                }
                (Access::Write | Access::Update, _) => {
                    let parts = io.real_mut(binding).chunks_mut(rows * stride);
                    tasks.iter_mut().zip(parts).for_each(|(task, part)| task.head.push(Part::Written(part)));
                }
            }
        }
    }
    for &binding in written {
        let parts = io.real_mut(binding).chunks_mut(chunk);
        tasks.iter_mut().zip(parts).for_each(|(task, part)| task.outputs.push(part));
    }
    tasks.into_par_iter().enumerate().for_each_init(
        || vec![R::ZERO; (chain.steps.len() - chain.outputs.len()) * chunk],
        |scratch, (task_at, task)| {
            let range = task_at * chunk..((task_at + 1) * chunk).min(chain.elements);
            task.run(chain, &inputs, range.clone(), range.len() / width, scratch.chunks_mut(chunk));
        },
    );
}

/// What one chunk has of the buffers.
struct Task<'a, R> {
    /// Of the head's, in the order of its bindings.
    head: Vec<Part<'a, R>>,
    outputs: Vec<&'a mut [R]>,
}

enum Part<'a, R> {
    Read(&'a [R]),
    Written(&'a mut [R]),
}

impl<R> Default for Task<'_, R> {
    fn default() -> Self {
        Task { head: Vec::new(), outputs: Vec::new() }
    }
}

impl<R: RunTwin> Task<'_, R> {
    /// Runs the head's `rows`, and the steps over the elements of `range`.
    fn run<'s>(
        mut self,
        chain: &Chain,
        inputs: &[&[R]],
        range: Range<usize>,
        rows: usize,
        mut scratch: impl Iterator<Item = &'s mut [R]>,
    ) where
        R: 's,
    {
        let mut of_head: &[R] = &[];
        if let Some(head) = &chain.head {
            let params = (head.rowwise().part)(bytemuck::cast_slice(&head.params), rows);
            let mut io = Io::new(head.kernel.name);
            for part in &mut self.head {
                match part {
                    Part::Read(part) => io.push(part),
                    Part::Written(part) => io.push_mut(part),
                }
            }
            R::run_twin(head.kernel, bytemuck::cast_slice(&params), &mut io);
            drop(io);
            of_head = match &self.head[head.rowwise().result] {
                Part::Read(part) => part,
                Part::Written(part) => part,
            };
        }
        let part = |input: &&'_ [R]| if input.len() == chain.elements { range.clone() } else { 0..1 };
        let inputs: Vec<&[R]> = inputs.iter().map(|input| &input[part(input)]).collect();
        let mut written = self.outputs.into_iter();
        let mut results: Vec<&[R]> = Vec::with_capacity(chain.steps.len());
        for (at, step) in chain.steps.iter().enumerate() {
            let output: &mut [R] = match chain.outputs.contains(&at) {
                true => written.next().expect("a chunk an output"),
                false => &mut scratch.next().expect("a chunk a step inside")[..range.len()],
            };
            let params = (step.elementwise().part)(bytemuck::cast_slice(&step.params), range.clone());
            let mut io = Io::new(step.kernel.name);
            for value in &step.inputs {
                io.push(match value {
                    Value::Buffer(binding) => inputs[*binding],
                    Value::Head => of_head,
                    Value::Step(step) => results[*step],
                });
            }
            io.push_mut(output);
            R::run_twin(step.kernel, bytemuck::cast_slice(&params), &mut io);
            drop(io);
            results.push(output);
        }
    }
}
