//! The parameters of every kernel lie in WGSL as they do in Rust: name by name, type by type, offset by offset.

use naga::{Module, ScalarKind, TypeInner};
use wgtune_engine::kernel::AnyKernel;
use wgtune_engine::ops::OPS;

/// A number among a kernel's parameters.
#[derive(PartialEq, Debug)]
struct Number {
    /// The names of the fields that lead to it, with `_` between them.
    name: String,
    offset: usize,
    is_float: bool,
}

#[test]
fn parameters_lie_in_wgsl_as_in_rust() {
    let mut compared = 0;
    for kernel in OPS.iter().flat_map(|op| op.kernels) {
        let twins = in_rust(kernel);
        for shader in 0..kernel.shaders {
            let source = (kernel.source)(shader);
            let numbers = in_wgsl(source);
            assert!(!numbers.is_empty(), "{source} has no parameters");
            for number in numbers {
                let twin = twins.iter().find(|twin| twin.offset == number.offset);
                let fits = twin.is_some_and(|twin| twin.is_float == number.is_float && is_same(&twin.name, &number.name));
                assert!(fits, "{source}: expected {twin:?} of {}, got {number:?}", kernel.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "only {compared} numbers were compared");
}

#[test]
fn no_kernel_binds_more_buffers_than_every_device_has() {
    // What WebGPU and Vulkan ask of every device.
    const MOST: usize = 8;
    for kernel in OPS.iter().flat_map(|op| op.kernels) {
        assert!(kernel.access.len() <= MOST, "{} binds {}", kernel.name, kernel.access.len());
        for source in (0..kernel.shaders).map(kernel.source) {
            let module = naga::front::wgsl::parse_str(&wgtune_shaders::source(source).unwrap()).unwrap();
            let bound = module
                .global_variables
                .iter()
                .filter(|(_, variable)| matches!(variable.space, naga::AddressSpace::Storage { .. }));
            let places: Vec<u32> =
                bound.map(|(_, variable)| variable.binding.as_ref().expect("storage is bound").binding).collect();
            assert!(places.iter().all(|place| (*place as usize) < kernel.access.len()), "{source} binds {places:?}");
        }
    }
}

/// A field of a struct inside another may stand in WGSL without the outer one's name, a struct of four as a vector, the structs of
/// an array by their own names, and its numbers as `name_0`, `name_1`.
fn is_same(rust: &str, wgsl: &str) -> bool {
    let is_end = |rust: &str| rust.strip_suffix(wgsl).is_some_and(|outer| outer.is_empty() || outer.ends_with('_'));
    let inner = is_end(rust) || is_end(&rust.replace('[', "_").replace(']', ""));
    let of_vector =
        wgsl.split_once('[').is_some_and(|(name, _)| rust.strip_prefix(name).is_some_and(|field| field.starts_with('_')));
    let of_array = || Some(rust.strip_prefix("views_")? == wgsl.split_once('_')?.1);
    inner || of_vector || of_array().unwrap_or(false)
}

/// Those of a shader's uniform block.
fn in_wgsl(source: &str) -> Vec<Number> {
    let text = wgtune_shaders::source(source).unwrap();
    let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|error| panic!("{source}: {error}"));
    let uniform = module.global_variables.iter().find(|(_, variable)| variable.space == naga::AddressSpace::Uniform);
    let (_, uniform) = uniform.unwrap_or_else(|| panic!("{source} has no uniform block"));
    let mut numbers = Vec::new();
    flatten(&module, uniform.ty, "", 0, &mut numbers);
    numbers
}

fn flatten(module: &Module, of: naga::Handle<naga::Type>, name: &str, offset: usize, into: &mut Vec<Number>) {
    let is_float = |scalar: naga::Scalar| {
        assert_eq!(scalar.width, 4, "{name}");
        scalar.kind == ScalarKind::Float
    };
    let mut add = |count: usize, scalar: naga::Scalar| {
        let number = |at: usize| Number { name: indexed(name, at, count), offset: offset + 4 * at, is_float: is_float(scalar) };
        into.extend((0..count).map(number));
    };
    match &module.types[of].inner {
        TypeInner::Scalar(scalar) => add(1, *scalar),
        TypeInner::Vector { size, scalar } => add(*size as usize, *scalar),
        TypeInner::Struct { members, .. } => {
            for member in members {
                let field = member.name.as_deref().expect("fields have names");
                let name = if name.is_empty() { field.to_string() } else { format!("{name}_{field}") };
                flatten(module, member.ty, &name, offset + member.offset as usize, into);
            }
        }
        TypeInner::Array { base, size: naga::ArraySize::Constant(count), stride } => {
            // Arrays of vectors of four stand for arrays of numbers, which uniforms have no other way.
            let mut elements = Vec::new();
            for at in 0..count.get() {
                flatten(module, *base, name, offset + (at * stride) as usize, &mut elements);
            }
            let count = elements.len();
            into.extend(elements.into_iter().enumerate().map(|(at, number)| Number { name: indexed(name, at, count), ..number }));
        }
        other => panic!("{name} is {other:?}"),
    }
}

/// Those of a kernel's Rust type: how it prints says what its fields are called, and whether each is a float.
fn in_rust(kernel: &AnyKernel) -> Vec<Number> {
    let zeros = vec![0u32; kernel.params_size.div_ceil(4)];
    let text = (kernel.describe)(bytemuck::cast_slice(&zeros));
    let mut numbers = Vec::new();
    let rest = read(&text, "", &mut numbers);
    assert!(rest.trim().is_empty() && 4 * numbers.len() == kernel.params_size, "{}: {text}", kernel.name);
    numbers
}

/// Reads one printed value, and gives what follows it.
fn read<'a>(text: &'a str, name: &str, into: &mut Vec<Number>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('[') {
        let start = into.len();
        while !rest.trim_start().starts_with(']') {
            rest = read(rest, name, into).trim_start().trim_start_matches(',');
        }
        let count = into.len() - start;
        for (at, number) in into[start..].iter_mut().enumerate() {
            if number.name == name {
                number.name = indexed(name, at, count);
            }
        }
        return &rest.trim_start()[1..];
    }
    let word = text.find(|c: char| !c.is_alphanumeric() && c != '.' && c != '_' && c != '-').unwrap_or(text.len());
    let (word, mut rest) = text.split_at(word);
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        into.push(Number { name: name.to_string(), offset: 4 * into.len(), is_float: word.contains('.') });
        return rest;
    }
    rest = rest.trim_start().strip_prefix('{').unwrap_or_else(|| panic!("expected a struct at {text}"));
    while !rest.trim_start().starts_with('}') {
        let (field, value) = rest.trim_start().split_once(':').unwrap_or_else(|| panic!("expected a field at {rest}"));
        let name = if name.is_empty() { field.to_string() } else { format!("{name}_{field}") };
        rest = read(value, &name, into).trim_start().trim_start_matches(',');
    }
    &rest.trim_start()[1..]
}

fn indexed(name: &str, at: usize, count: usize) -> String {
    if count == 1 { name.to_string() } else { format!("{name}[{at}]") }
}
