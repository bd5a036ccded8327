// The end of what was computed in parts: adds up the parts of each element, in order. `together` elements of a part lie together, and
// behind them those of the next part.
#import common
#import matmul_epilogue

struct Params {
    elements: u32, columns: u32, parts: u32, together: u32,
    scale: f32, has_bias: u32, has_residual: u32, operation: u32,
    key_0: u32, key_1: u32, dropped: u32, kept_scale: f32,
}

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if at >= params.elements {
        return;
    }
    let first = at / params.together * params.together * params.parts + at % params.together;
    var sum = 0.0;
    for (var part = 0u; part < params.parts; part++) {
        sum += sums[first + part * params.together];
    }
    store(at, at % params.columns, sum);
}
