// Eight chains of multiply-adds an invocation, none waiting for another: arithmetic at its fastest.
#import common

struct Params { elements: u32, rounds: u32, factor: f32, term: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

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
    let factor = vec4<f32>(params.factor);
    let term = vec4<f32>(params.term);
    var a = vec4<f32>(x[i]) + vec4<f32>(0.0, 0.125, 0.25, 0.375);
    var b = a + vec4<f32>(0.5);
    for (var round = 0u; round < params.rounds; round++) {
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
        a = fma(a, factor, term);
        b = fma(b, factor, term);
    }
    let sums = a + b;
    y[i] = sums.x + sums.y + sums.z + sums.w;
}
