// dx = rate (g w - mean(g w) - n mean(g w n)), n = (x - mean) rate, with one workgroup a row; mean(g w) only if `centered`.
#import common
#import workgroup_reduce

struct Params { rows: u32, width: u32, centered: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read> statistics: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
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
    // A row past the end reads the last one's statistics and writes nothing.
    let known = min(row, params.rows - 1u);
    let mean = statistics[2u * known];
    let rate = statistics[2u * known + 1u];
    var shift = 0.0;
    var slope = 0.0;
    for (var i = lane; i < width; i += 256u) {
        let gw = g[first + i] * weight[i];
        shift += gw;
        slope += gw * (x[first + i] - mean) * rate;
    }
    slope = workgroup_sum(slope, lane) / count;
    if params.centered == 1u {
        shift = workgroup_sum(shift, lane) / count;
    } else {
        shift = 0.0;
    }
    for (var i = lane; i < width; i += 256u) {
        dx[first + i] = rate * (g[first + i] * weight[i] - shift - (x[first + i] - mean) * rate * slope);
    }
}
