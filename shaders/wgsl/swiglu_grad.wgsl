// dgate = g up s (1 + gate (1 - s)) and dup = g gate s, with s = sigmoid(gate), four elements an invocation.
#import common
#import sigmoid

struct Params { elements: u32 }

@group(0) @binding(0) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dgate: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dup: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i < (params.elements + 3u) / 4u {
        let s = sigmoids(gate[i]);
        let slope = g[i] * s;
        dgate[i] = slope * up[i] * (1.0 + gate[i] * (1.0 - s));
        dup[i] = slope * gate[i];
    }
}
