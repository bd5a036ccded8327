// dx = y (dy - sum y dy) with one invocation a row.
#import common

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
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
    var mean = 0.0;
    for (var i = first; i < end; i++) {
        mean += y[i] * dy[i];
    }
    for (var i = first; i < end; i++) {
        dx[i] = y[i] * (dy[i] - mean);
    }
}
