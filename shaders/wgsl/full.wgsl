// Every element the same value, four an invocation.
#import common

struct Params { elements: u32, value: f32 }

@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i < (params.elements + 3u) / 4u {
        y[i] = vec4(params.value);
    }
}
