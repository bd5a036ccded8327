// A copy, vector by vector: memory at its fastest.
#import common

struct Params { vectors: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = linear_workgroup(workgroup, workgroups) * 1024u + lane;
    for (var i = first; i < min(first + 1024u, params.vectors); i += 256u) {
        y[i] = x[i];
    }
}
