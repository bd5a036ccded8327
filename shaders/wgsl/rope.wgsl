// x [B, T, heads, 2 half] rotated by the angles of each token's position: four pairs (i, i + half) an invocation.
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
    let first = 4u * (linear_workgroup(workgroup, workgroups) * 64u + lane);
    if first >= params.pairs {
        return;
    }
    if params.half % 4u == 0u {
        let here = place_of(first);
        for (var i = 0u; i < 4u; i++) {
            rotate(Place(here.low + i, here.source + i * params.view.inner.w, here.angle + i));
        }
    } else {
        for (var pair = first; pair < min(first + 4u, params.pairs); pair++) {
            rotate(place_of(pair));
        }
    }
}

// Where a pair's first half lies in y and in x, and its angle in the tables.
struct Place { low: u32, source: u32, angle: u32 }

fn place_of(pair: u32) -> Place {
    let column = pair % params.half;
    let row = pair / params.half;
    let low = row * 2u * params.half + column;
    // A position past the tables must not read past them.
    let angle = min(positions[row / params.heads], params.table_rows - 1u) * params.half + column;
    return Place(low, position(params.view, low), angle);
}

fn rotate(at: Place) {
    let cosine = cosines[at.angle];
    let sine = params.direction * sines[at.angle];
    let a = x[at.source];
    let b = x[at.source + params.half * params.view.inner.w];
    y[at.low] = a * cosine - b * sine;
    y[at.low + params.half] = b * cosine + a * sine;
}
