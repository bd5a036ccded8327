// sums[start..]: the sum of the squares of each PART of x, one workgroup a sum.
#import common
#import workgroup_reduce

struct Params { elements: u32, start: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

override PART: u32 = 1u;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let part = linear_workgroup(workgroup, workgroups);
    let end = min((part + 1u) * PART, params.elements);
    var squares = 0.0;
    for (var i = part * PART + lane; i < end; i += 256u) {
        squares += x[i] * x[i];
    }
    let sum = workgroup_sum(squares, lane);
    if lane == 0u && part < (params.elements + PART - 1u) / PART {
        sums[params.start + part] = sum;
    }
}
