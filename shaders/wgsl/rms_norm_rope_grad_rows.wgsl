// dx = rate (g w - x rate^2 mean(g w x)), g rotated back by the angles of each token's position: heads are rows.
#import team

struct Params { rows: u32, heads: u32, half: u32, table_rows: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> weight: array<Element>;
@group(0) @binding(2) var<storage, read> cosines: array<Element>;
@group(0) @binding(3) var<storage, read> sines: array<Element>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read> g: array<Element>;
@group(0) @binding(6) var<storage, read> statistics: array<f32>;
@group(0) @binding(7) var<storage, read_write> dx: array<Element>;
@group(1) @binding(0) var<uniform> params: Params;

// g w at a column of the first half of a row, and of the second.
struct Pair { low: Element, high: Element }

fn weighted(start: u32, angles: u32, column: u32) -> Pair {
    let half = params.half / WIDTH;
    let low = g[start + column];
    let high = g[start + half + column];
    let cosine = cosines[angles + column];
    let sine = sines[angles + column];
    return Pair((low * cosine + high * sine) * weight[column], (high * cosine - low * sine) * weight[half + column]);
}

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, 2u * params.half);
    // A row past the end has no columns.
    let half = params.half / WIDTH;
    let end = select(0u, half, walk.row < params.rows);
    let known = min(walk.row, max(params.rows, 1u) - 1u);
    let rate = statistics[2u * known + 1u];
    // A position past the tables must not read past them.
    let angles = min(positions[known / params.heads], params.table_rows - 1u) * half;
    let start = walk.first - local.lane;
    var slopes = Element(0.0);
    for (var column = local.lane; column < end; column += LANES) {
        let gw = weighted(start, angles, column);
        slopes += gw.low * x[start + column] + gw.high * x[start + half + column];
    }
    let slope = team_sum(total(slopes), local) * rate * rate / f32(2u * params.half);
    for (var column = local.lane; column < end; column += LANES) {
        let gw = weighted(start, angles, column);
        dx[start + column] = rate * (gw.low - x[start + column] * slope);
        dx[start + half + column] = rate * (gw.high - x[start + half + column] * slope);
    }
}
