//! Shaders of fused commands, written when a chain is first met.

use std::fmt::Write;

use crate::buffer::BufferRef;
use crate::kernel::{Constants, Traits, grid};
use crate::recording::{Chain, Head, Value};

/// Invocations of a workgroup, each with four elements, of a chain without a head.
const INVOCATIONS: usize = 256;

/// Everything that the text of a fused shader depends on, and its constants.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// The head by its shader's name, and the values of its constants.
    head: Option<(&'static str, Vec<u64>)>,
    /// Kernel (by address), function and inputs of each step.
    steps: Vec<(usize, u32, Vec<Value>)>,
    outputs: Vec<usize>,
    /// Which of the buffers that the steps read hold one number for all elements.
    numbers: Vec<bool>,
}

impl Shape {
    pub fn of(chain: &Chain, buffers: &[BufferRef], traits: &Traits) -> Shape {
        let [_, read, _] = chain.split(buffers);
        Shape {
            head: chain.head.as_ref().map(|head| {
                let constants = head_constants(head, traits).into_iter().map(|(_, value)| value.to_bits());
                ((head.kernel.source)(shader(head, traits)), constants.collect())
            }),
            steps: chain
                .steps
                .iter()
                .map(|step| {
                    let function = (step.pointwise().function)(bytemuck::cast_slice(&step.params));
                    (std::ptr::from_ref(step.kernel) as usize, function, step.inputs.clone())
                })
                .collect(),
            outputs: chain.outputs.clone(),
            numbers: read.iter().map(|buffer| buffer.elements == 1 && chain.elements != 1).collect(),
        }
    }
}

/// The head's shader, of those that it would choose among on its own.
fn shader(head: &Head, traits: &Traits) -> usize {
    (head.kernel.choose)(bytemuck::cast_slice(&head.params), traits)
}

fn head_constants(head: &Head, traits: &Traits) -> Constants {
    (head.kernel.constants)(bytemuck::cast_slice(&head.params), shader(head, traits), traits)
}

/// Values for the constants of a chain's shader: those of the head.
pub(super) fn constants(chain: &Chain, traits: &Traits) -> Constants {
    chain.head.as_ref().map(|head| head_constants(head, traits)).unwrap_or_default()
}

/// How many workgroups to start.
pub(super) fn workgroups(chain: &Chain, traits: &Traits) -> [u32; 3] {
    match &chain.head {
        Some(head) => (head.kernel.workgroups)(bytemuck::cast_slice(&head.params), shader(head, traits)),
        None => grid(chain.elements.div_ceil(4), INVOCATIONS),
    }
}

/// The uniform block: four words a step, then the parameters of the head, or the number of elements.
pub(super) fn params(chain: &Chain) -> impl Iterator<Item = u32> + '_ {
    let words = chain.steps.iter().flat_map(|step| (step.pointwise().words)(bytemuck::cast_slice(&step.params)));
    let elements = chain.head.is_none().then_some(chain.elements as u32);
    words.chain(chain.head.iter().flat_map(|head| head.params.iter().copied())).chain(elements)
}

/// Words of that block.
pub(super) fn params_words(chain: &Chain) -> usize {
    4 * chain.steps.len() + chain.head.as_ref().map_or(1, |head| head.params.len())
}

/// The WGSL text of a fused command.
///
/// # Errors
/// If a shader that it needs does not exist.
pub(super) fn text(shape: &Shape, chain: &Chain) -> Result<String, wgtune_shaders::Missing> {
    let mut text = String::new();
    let mut imports: Vec<&str> = chain.steps.iter().filter_map(|step| step.pointwise().import).collect();
    imports.sort_unstable();
    imports.dedup();
    let rows = shape.head.as_ref().map(|(shader, _)| shader);
    for import in rows.into_iter().chain(&["common"]).chain(&imports) {
        line(&mut text, format_args!("#import {import}"));
    }
    let first = chain.head.as_ref().map_or(0, |head| head.kernel.access.len());
    for (at, &is_number) in shape.numbers.iter().enumerate() {
        let (binding, element) = (first + at, if is_number { "f32" } else { "vec4<f32>" });
        line(&mut text, format_args!("@group(0) @binding({binding}) var<storage, read> x{at}: array<{element}>;"));
    }
    for (at, step) in shape.outputs.iter().enumerate() {
        let binding = first + shape.numbers.len() + at;
        line(&mut text, format_args!("@group(0) @binding({binding}) var<storage, read_write> y{step}: array<vec4<f32>>;"));
    }
    match &chain.head {
        Some(_) => text.push_str("fn store(i: u32, head: vec4<f32>) {\n    y[i] = head;\n"),
        None => text.push_str(
            "struct Params { elements: u32 }
@group(1) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(256)
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
        ),
    }
    for (at, &is_number) in shape.numbers.iter().enumerate() {
        let value = if is_number { format!("vec4(x{at}[0])") } else { format!("x{at}[i]") };
        line(&mut text, format_args!("    let b{at} = {value};"));
    }
    for (at, ((_, function, inputs), step)) in shape.steps.iter().zip(&chain.steps).enumerate() {
        let mut expression = (step.pointwise().expression)(*function).replace('#', &format!("params.steps[{at}]"));
        for (input, value) in inputs.iter().enumerate() {
            let name = match value {
                Value::Buffer(at) => format!("b{at}"),
                Value::Head => "head".to_string(),
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
    // The steps' words come before whatever parameters there are: an array begins at a multiple of its elements' size.
    let steps = format!("struct Params {{ steps: array<vec4<u32>, {}>,", chain.steps.len());
    Ok(wgtune_shaders::expand(&text, &["store"])?.replacen("struct Params {", &steps, 1))
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::{fuse, reads};
    use crate::random::Philox;
    use crate::recording::Command;
    use crate::{DType, Device, ops};
    use wgpu::naga::front::wgsl;
    use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};

    #[test]
    fn a_head_joins_its_rows_as_its_device_best_does() {
        let device = Device::cpu();
        let [x, weight] = [&[16usize, 1024][..], &[1024]].map(|shape| device.empty(shape, DType::F32));
        let y = ops::dropout(&ops::rms_norm(&x, &weight, 1e-5), Philox::new(1), 0.5);
        let recorded = device.recorded();
        let fused = fuse(recorded.clone(), &reads(&recorded, |_| true));
        drop(y);
        let chain = |command: &Command| match command {
            Command::Fused { chain, buffers } if chain.head.is_some() => Some((chain.clone(), buffers.clone())),
            _ => None,
        };
        let (chain, buffers) = fused.commands.iter().find_map(chain).expect("a norm and what follows it");
        let real = Traits::default();
        let with_subgroups = Traits { subgroups: Some((32, 64)), ..Traits::default() };
        let shapes = [&real, &with_subgroups].map(|traits| Shape::of(&chain, &buffers, traits));
        assert!(shapes[0] != shapes[1]);
        for (shape, joins) in shapes.iter().zip([false, true]) {
            let text = text(shape, &chain).unwrap();
            assert_eq!(text.contains("subgroupAdd"), joins, "{text}");
            let module = wgsl::parse_str(&text).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&text)));
            let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
            validator.validate(&module).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&text)));
        }
    }
}
