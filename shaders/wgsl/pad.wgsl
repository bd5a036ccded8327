// x [outer, part, inner] placed at `start` of an axis of size `whole`, zeros elsewhere: y [outer, whole, inner].
#import common

struct Params { elements: u32, start: u32, part: u32, whole: u32, inner: u32 }

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
    let inner = i % params.inner;
    let at = (i / params.inner) % params.whole;
    let outer = i / (params.inner * params.whole);
    var value = 0.0;
    if at >= params.start && at < params.start + params.part {
        value = x[(outer * params.part + at - params.start) * params.inner + inner];
    }
    y[i] = value;
}
