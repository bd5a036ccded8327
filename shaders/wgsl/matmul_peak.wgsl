// The largest magnitude, as the bits of an f32: those order as the numbers do. A maximum does not depend on the order.
#import common

struct Params { elements: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> peak: array<atomic<u32>>;
@group(1) @binding(0) var<uniform> params: Params;

var<workgroup> largest: atomic<u32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if lane == 0u {
        atomicStore(&largest, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    let first = linear_workgroup(workgroup, workgroups) * 4096u + lane;
    for (var i = 0u; i < 16u; i++) {
        let at = first + i * 256u;
        if at < params.elements {
            mine = max(mine, bitcast<u32>(x[at]) & 0x7fffffffu);
        }
    }
    atomicMax(&largest, mine);
    workgroupBarrier();
    if lane == 0u {
        atomicMax(&peak[0], atomicLoad(&largest));
    }
}
