// y = x rate weight, rotated by the angles of each token's position: heads of x [B, T, heads, 2 half] are rows.
#import team

struct Params { rows: u32, heads: u32, half: u32, table_rows: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> weight: array<Element>;
@group(0) @binding(2) var<storage, read> cosines: array<Element>;
@group(0) @binding(3) var<storage, read> sines: array<Element>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<Element>;
@group(0) @binding(6) var<storage, read_write> statistics: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, 2u * params.half);
    let half = params.half / WIDTH;
    var squares = Element(0.0);
    for (var i = walk.first; i < walk.end; i += LANES) {
        squares += x[i] * x[i];
    }
    let rate = 1.0 / sqrt(team_sum(total(squares), local) / f32(2u * params.half) + params.eps);
    if walk.row >= params.rows {
        return;
    }
    if local.lane == 0u {
        statistics[2u * walk.row] = 0.0;
        statistics[2u * walk.row + 1u] = rate;
    }
    // A position past the tables must not read past them.
    let angles = min(positions[walk.row / params.heads], params.table_rows - 1u) * half;
    let start = walk.first - local.lane;
    for (var column = local.lane; column < half; column += LANES) {
        let low = x[start + column] * rate * weight[column];
        let high = x[start + half + column] * rate * weight[half + column];
        let cosine = cosines[angles + column];
        let sine = sines[angles + column];
        y[start + column] = low * cosine - high * sine;
        y[start + half + column] = high * cosine + low * sine;
    }
}
