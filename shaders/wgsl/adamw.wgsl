// One step of AdamW in place, with decoupled decay and corrected moments, four elements an invocation. Skipped if the scale is not finite.
#import common
#import finite

struct Params {
    elements: u32,
    keep: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
    rate: f32,
    root: f32,
}

@group(0) @binding(0) var<storage, read_write> parameter: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> mean: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> square: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> gradient: array<vec4<f32>>;
// As bits: a shader may take it for granted that a float is finite.
@group(0) @binding(4) var<storage, read> scale: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i >= (params.elements + 3u) / 4u || !is_finite(scale[0]) {
        return;
    }
    let g = bitcast<f32>(scale[0]) * gradient[i];
    let m = params.beta1 * mean[i] + params.rest1 * g;
    let v = params.beta2 * square[i] + params.rest2 * g * g;
    mean[i] = m;
    square[i] = v;
    parameter[i] = params.keep * parameter[i] - params.rate * m / (sqrt(v) * params.root + params.eps);
}
