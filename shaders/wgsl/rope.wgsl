// x [B, T, heads, 2 half] rotated by the angles of each token's position: one invocation a pair (i, i + half).
#import common
#import strided

struct Params { view: View, pairs: u32, heads: u32, half: u32, table_rows: u32, direction: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> cosines: array<f32>;
@group(0) @binding(2) var<storage, read> sines: array<f32>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = linear_workgroup(workgroup, workgroups) * 64u + lane;
    if pair >= params.pairs {
        return;
    }
    let column = pair % params.half;
    let row = pair / params.half;
    // A position past the tables must not read past them.
    let angle = min(positions[row / params.heads], params.table_rows - 1u) * params.half + column;
    let cosine = cosines[angle];
    let sine = params.direction * sines[angle];
    let low = row * 2u * params.half + column;
    let high = low + params.half;
    let from_low = position(params.view, low);
    let a = x[from_low];
    let b = x[from_low + params.half * params.view.inner.w];
    y[low] = a * cosine - b * sine;
    y[high] = b * cosine + a * sine;
}
