// x [B, T, heads, 2 half] rotated by the angles of each token's position: an Element of pairs (i, i + half) an invocation.
#import common
#import strided

struct Params { view: View, pairs: u32, heads: u32, half: u32, table_rows: u32, direction: f32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> cosines: array<Element>;
@group(0) @binding(2) var<storage, read> sines: array<Element>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<Element>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = WIDTH * (linear_workgroup(workgroup, workgroups) * 64u + lane);
    if pair >= params.pairs {
        return;
    }
    let row = pair / params.half;
    let column = pair - row * params.half;
    // A position past the tables must not read past them.
    let angle = (min(positions[row / params.heads], params.table_rows - 1u) * params.half + column) / WIDTH;
    let cosine = cosines[angle];
    let sine = params.direction * sines[angle];
    let low = row * 2u * params.half + column;
    let source = position(params.view, low);
    let a = x[source / WIDTH];
    let b = x[(source + params.half * params.view.inner.w) / WIDTH];
    y[low / WIDTH] = a * cosine - b * sine;
    y[(low + params.half) / WIDTH] = b * cosine + a * sine;
}
