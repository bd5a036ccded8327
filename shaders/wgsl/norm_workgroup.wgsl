// y = (x - mean) rate weight with one workgroup a row; mean is 0 unless `centered`.
#import common
#import workgroup_reduce

struct Params { rows: u32, width: u32, centered: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> statistics: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup, workgroups);
    let first = row * params.width;
    let width = select(0u, params.width, row < params.rows);
    let count = f32(params.width);
    var mean = 0.0;
    if params.centered == 1u {
        var part = 0.0;
        for (var i = lane; i < width; i += 256u) {
            part += x[first + i];
        }
        mean = workgroup_sum(part, lane) / count;
    }
    var squares = 0.0;
    for (var i = lane; i < width; i += 256u) {
        let centered = x[first + i] - mean;
        squares += centered * centered;
    }
    let rate = 1.0 / sqrt(workgroup_sum(squares, lane) / count + params.eps);
    if lane == 0u && row < params.rows {
        statistics[2u * row] = mean;
        statistics[2u * row + 1u] = rate;
    }
    for (var i = lane; i < width; i += 256u) {
        y[first + i] = (x[first + i] - mean) * rate * weight[i];
    }
}
