// Elements of one storage type in another, two an invocation so that a narrow word is written whole.
#import common
#import storage

struct Params { elements: u32 }

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

override FROM: u32 = 0u;
override TO: u32 = 0u;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = linear_workgroup(workgroup, workgroups) * 256u + lane;
    let i = pair * 2u;
    if i >= params.elements {
        return;
    }
    let both = i + 1u < params.elements;
    var low = 0.0;
    var high = 0.0;
    if FROM == 0u {
        low = bitcast<f32>(x[i]);
        if both {
            high = bitcast<f32>(x[i + 1u]);
        }
    } else {
        low = widen_low(FROM, x[pair]);
        if both {
            high = widen_high(FROM, x[pair]);
        }
    }
    if TO == 0u {
        y[i] = bitcast<u32>(low);
        if both {
            y[i + 1u] = bitcast<u32>(high);
        }
    } else {
        y[pair] = narrow(TO, low, high);
    }
}
