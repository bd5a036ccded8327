// sums[start..]: the sum of the squares of each PART of x, one invocation a sum.
#import common

struct Params { elements: u32, start: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

override PART: u32 = 1u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let part = linear_workgroup(workgroup, workgroups) * 64u + lane;
    if part >= (params.elements + PART - 1u) / PART {
        return;
    }
    let end = min((part + 1u) * PART, params.elements);
    // Four sums, so that the rounding errors of a long one stay small.
    var sum = vec4(0.0);
    for (var i = part * PART; i + 3u < end; i += 4u) {
        sum += x[i / 4u] * x[i / 4u];
    }
    let rest = x[end / 4u];
    sum += select(vec4(0.0), rest * rest, vec4(0u, 1u, 2u, 3u) < vec4(end % 4u));
    sums[params.start + part] = (sum.x + sum.y) + (sum.z + sum.w);
}
