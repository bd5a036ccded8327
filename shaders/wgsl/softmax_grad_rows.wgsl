// dx = y (dy - sum y dy), row by row.
#import team

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> y: array<Element>;
@group(0) @binding(1) var<storage, read> dy: array<Element>;
@group(0) @binding(2) var<storage, read_write> dx: array<Element>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, params.width);
    var sum = Element(0.0);
    for (var i = walk.first; i < walk.end; i += LANES) {
        sum += y[i] * dy[i];
    }
    let mean = team_sum(total(sum), local);
    for (var i = walk.first; i < walk.end; i += LANES) {
        dx[i] = y[i] * (dy[i] - mean);
    }
}
