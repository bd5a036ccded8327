// y = f(a, b), element by element, each side broadcast by its strides.
#import common
#import strided

struct Params { a: View, b: View, elements: u32 }

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

// The number is the order of the table in engine/src/ops/binary.rs.
override OPERATION: u32 = 0u;
// 1 where both sides fill their buffers in row-major order.
override DENSE: u32 = 0u;

fn apply(a: f32, b: f32) -> f32 {
    switch OPERATION {
        case 0u: { return a + b; }
        case 1u: { return a - b; }
        case 2u: { return a * b; }
        case 3u: { return a / b; }
        case 4u: { return select(b, a, a > b); }
        case 5u: { return select(b, a, a < b); }
        case 6u: { return select(0.0, 1.0, a > b); }
        default: { return select(0.0, 1.0, a == b); }
    }
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i >= params.elements {
        return;
    }
    if DENSE == 1u {
        y[i] = apply(a[i], b[i]);
    } else {
        y[i] = apply(a[position(params.a, i)], b[position(params.b, i)]);
    }
}
