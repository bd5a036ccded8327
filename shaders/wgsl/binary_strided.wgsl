// y = f(a, b), four elements an invocation, each side broadcast by its strides.
#import common
#import binary_sides

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i < (params.elements + 3u) / 4u {
        let at_a = four_positions(params.a, 4u * i);
        let at_b = four_positions(params.b, 4u * i);
        y[i] = binary(OPERATION, vec4(a[at_a.x], a[at_a.y], a[at_a.z], a[at_a.w]), vec4(b[at_b.x], b[at_b.y], b[at_b.z], b[at_b.w]));
    }
}
