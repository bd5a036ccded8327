// dx = y (dy - sum y dy) with one workgroup a row.
#import common
#import workgroup_reduce

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup, workgroups);
    let first = row * params.width;
    let end = select(first, first + params.width, row < params.rows);
    var part = 0.0;
    for (var i = first + lane; i < end; i += 256u) {
        part += y[i] * dy[i];
    }
    let mean = workgroup_sum(part, lane);
    for (var i = first + lane; i < end; i += 256u) {
        dx[i] = y[i] * (dy[i] - mean);
    }
}
