// y = f(a, b), four elements an invocation, where each side fills y or repeats all along it.
#import common
#import binary_sides

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

// Whether each side repeats.
override A_REPEATS: bool = false;
override B_REPEATS: bool = false;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i < (params.elements + 3u) / 4u {
        y[i] = binary(OPERATION, side_a(i), side_b(i));
    }
}

fn side_a(i: u32) -> vec4<f32> {
    if !A_REPEATS {
        return a[i];
    }
    let four = a[i % max(params.periods.x, 1u)];
    return select(four, four.xxxx, params.periods.x == 0u);
}

fn side_b(i: u32) -> vec4<f32> {
    if !B_REPEATS {
        return b[i];
    }
    let four = b[i % max(params.periods.y, 1u)];
    return select(four, four.xxxx, params.periods.y == 0u);
}
