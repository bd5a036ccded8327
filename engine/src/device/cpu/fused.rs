//! Fused commands: all steps over a chunk that the cache holds, then the next chunk.

use rayon::prelude::*;

use super::RunTwin;
use crate::kernel::Io;
use crate::recording::{Step, Value};

/// Elements of a chunk: few enough that a twin does not share them out once more, and that a few steps' results stay in the
/// first two levels of the cache.
const CHUNK: usize = 4096;

/// Runs the steps; those of `outputs` have a binding behind what is read.
pub(super) fn run<R: RunTwin>(elements: usize, steps: &[Step], outputs: &[usize], io: &mut Io<R>, reads: usize) {
    let inputs: Vec<&[R]> = (0..reads).map(|binding| io.real(binding)).collect();
    let mut tasks: Vec<Vec<&mut [R]>> = (0..elements.div_ceil(CHUNK)).map(|_| Vec::with_capacity(outputs.len())).collect();
    for binding in 0..outputs.len() {
        let chunks = io.real_mut(reads + binding).chunks_mut(CHUNK);
        tasks.iter_mut().zip(chunks).for_each(|(task, chunk)| task.push(chunk));
    }
    tasks.into_par_iter().enumerate().for_each_init(
        || vec![R::ZERO; (steps.len() - outputs.len()) * CHUNK],
        |scratch, (task, written)| {
            let range = task * CHUNK..((task + 1) * CHUNK).min(elements);
            let part = |input: &&'_ [R]| if input.len() == elements { range.clone() } else { 0..1 };
            let inputs: Vec<&[R]> = inputs.iter().map(|input| &input[part(input)]).collect();
            let (mut written, mut inside) = (written.into_iter(), scratch.chunks_mut(CHUNK));
            let mut results: Vec<&[R]> = Vec::with_capacity(steps.len());
            for (at, step) in steps.iter().enumerate() {
                let output: &mut [R] = match outputs.contains(&at) {
                    true => written.next().expect("a chunk an output"),
                    false => &mut inside.next().expect("a chunk a step inside")[..range.len()],
                };
                let params = (step.pointwise().part)(bytemuck::cast_slice(&step.params), range.clone());
                let values = step.inputs.iter().map(|value| match value {
                    Value::Buffer(binding) => inputs[*binding],
                    Value::Step(step) => results[*step],
                });
                R::run_twin(step.kernel, bytemuck::cast_slice(&params), &mut Io::of(step.kernel.name, values, output));
                results.push(output);
            }
        },
    );
}
