// y = a where the mask is not 0, else b, each broadcast by its strides. Bits, so that what is not chosen may be anything.
#import common
#import strided

struct Params { mask: View, a: View, b: View, elements: u32, bits: u32 }

@group(0) @binding(0) var<storage, read> mask: array<u32>;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
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
    if (mask[position(params.mask, i)] & params.bits) != 0u {
        y[i] = a[position(params.a, i)];
    } else {
        y[i] = b[position(params.b, i)];
    }
}
