//! Shaders of fused commands, written when a chain is first met.

use std::fmt::Write;

use crate::recording::{BufferRef, Step, Value};

/// Invocations of a workgroup, each with four elements.
pub(super) const INVOCATIONS: usize = 256;

/// Everything that the text of a fused shader depends on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Kernel (by address), function and inputs of each step.
    steps: Vec<(usize, u32, Vec<Value>)>,
    outputs: Vec<usize>,
    /// Which of the buffers that are read hold one number for all elements.
    numbers: Vec<bool>,
}

impl Shape {
    pub fn of(elements: usize, steps: &[Step], outputs: &[usize], buffers: &[BufferRef]) -> Shape {
        let step = |step: &Step| {
            let function = (step.pointwise().function)(bytemuck::cast_slice(&step.params));
            (std::ptr::from_ref(step.kernel) as usize, function, step.inputs.clone())
        };
        let read = &buffers[..buffers.len() - outputs.len()];
        Shape {
            steps: steps.iter().map(step).collect(),
            outputs: outputs.to_vec(),
            numbers: read.iter().map(|buffer| buffer.elements == 1 && elements != 1).collect(),
        }
    }
}

/// The uniform block: the number of elements, and four words a step.
pub(super) fn params(elements: usize, steps: &[Step]) -> impl Iterator<Item = u32> + '_ {
    let words = steps.iter().flat_map(|step| (step.pointwise().words)(bytemuck::cast_slice(&step.params)));
    [elements as u32, 0, 0, 0].into_iter().chain(words)
}

/// Words of that block.
pub(super) fn params_words(steps: &[Step]) -> usize {
    4 + 4 * steps.len()
}

/// The WGSL text of a fused command.
pub(super) fn text(shape: &Shape, steps: &[Step]) -> String {
    let reads = shape.numbers.len();
    let mut text = String::from("#import common\n");
    let mut imports: Vec<&str> = steps.iter().filter_map(|step| step.pointwise().import).collect();
    imports.sort_unstable();
    imports.dedup();
    imports.iter().for_each(|import| line(&mut text, format_args!("#import {import}")));
    line(&mut text, format_args!("struct Params {{ elements: u32, steps: array<vec4<u32>, {}> }}", steps.len()));
    line(&mut text, format_args!("@group(1) @binding(0) var<uniform> params: Params;"));
    for (binding, &is_number) in shape.numbers.iter().enumerate() {
        let element = if is_number { "f32" } else { "vec4<f32>" };
        line(&mut text, format_args!("@group(0) @binding({binding}) var<storage, read> x{binding}: array<{element}>;"));
    }
    for step in &shape.outputs {
        let binding = reads + shape.outputs.iter().position(|output| output == step).unwrap_or_default();
        line(&mut text, format_args!("@group(0) @binding({binding}) var<storage, read_write> y{step}: array<vec4<f32>>;"));
    }
    text.push_str(
        "@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i >= (params.elements + 3u) / 4u {
        return;
    }
",
    );
    for (binding, &is_number) in shape.numbers.iter().enumerate() {
        let value = if is_number { format!("vec4(x{binding}[0])") } else { format!("x{binding}[i]") };
        line(&mut text, format_args!("    let b{binding} = {value};"));
    }
    for (at, ((_, function, inputs), step)) in shape.steps.iter().zip(steps).enumerate() {
        let mut expression = (step.pointwise().expression)(*function).replace('#', &format!("params.steps[{at}]"));
        for (input, value) in inputs.iter().enumerate() {
            let name = match value {
                Value::Buffer(binding) => format!("b{binding}"),
                Value::Step(step) => format!("s{step}"),
            };
            expression = expression.replace(&format!("${input}"), &name);
        }
        line(&mut text, format_args!("    let s{at} = {expression};"));
    }
    for step in &shape.outputs {
        line(&mut text, format_args!("    y{step}[i] = s{step};"));
    }
    text.push_str("}\n");
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes any text");
}
