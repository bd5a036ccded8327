// Softmax with one invocation a row.
#import common

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup, workgroups) * 64u + lane;
    if row >= params.rows {
        return;
    }
    let first = row * params.width;
    let end = first + params.width;
    var largest = -3.4028234e38;
    for (var i = first; i < end; i++) {
        largest = max(largest, x[i]);
    }
    var sum = 0.0;
    for (var i = first; i < end; i++) {
        let e = exp(x[i] - largest);
        y[i] = e;
        sum += e;
    }
    let scale = 1.0 / sum;
    for (var i = first; i < end; i++) {
        y[i] *= scale;
    }
}
