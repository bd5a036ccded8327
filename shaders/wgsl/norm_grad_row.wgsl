// dx = rate (g w - mean(g w) - n mean(g w n)), n = (x - mean) rate, with one invocation a row; mean(g w) only if `centered`.
#import common

struct Params { rows: u32, width: u32, centered: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read> statistics: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
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
    let count = f32(params.width);
    let mean = statistics[2u * row];
    let rate = statistics[2u * row + 1u];
    var shift = 0.0;
    var slope = 0.0;
    for (var i = 0u; i < params.width; i++) {
        let gw = g[first + i] * weight[i];
        shift += gw;
        slope += gw * (x[first + i] - mean) * rate;
    }
    shift = select(0.0, shift / count, params.centered == 1u);
    slope /= count;
    for (var i = 0u; i < params.width; i++) {
        dx[first + i] = rate * (g[first + i] * weight[i] - shift - (x[first + i] - mean) * rate * slope);
    }
}
