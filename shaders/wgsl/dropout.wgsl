// y = kept_scale x where the place's random number is not among the dropped, else 0; four places an invocation.
#import common
#import philox

struct Params { key_0: u32, key_1: u32, dropped: u32, kept_scale: f32, elements: u32, first_block: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let block = linear_workgroup(workgroup, workgroups) * 256u + lane;
    let first = block * 4u;
    if first >= params.elements {
        return;
    }
    let drawn = draws(params.first_block + block, vec2(params.key_0, params.key_1));
    for (var i = first; i < min(first + 4u, params.elements); i++) {
        y[i] = select(0.0, params.kept_scale * x[i], drawn[i - first] >= params.dropped);
    }
}
