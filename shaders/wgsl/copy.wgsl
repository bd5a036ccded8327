// A view's elements in row-major order, four an invocation. Elements are 32 bits wide, of whatever type.
#import common
#import strided

struct Params { source: View, elements: u32 }

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i < (params.elements + 3u) / 4u {
        let at = four_positions(params.source, 4u * i);
        y[i] = vec4(x[at.x], x[at.y], x[at.z], x[at.w]);
    }
}
