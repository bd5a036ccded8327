// dx = rate (g w - mean(g w) - n mean(g w n)) + residual, n = (x - mean) rate, row by row; mean(g w) only if `centered`.
#import team

struct Params { rows: u32, width: u32, centered: u32, has_residual: u32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> weight: array<Element>;
@group(0) @binding(2) var<storage, read> g: array<Element>;
@group(0) @binding(3) var<storage, read> statistics: array<f32>;
// Any buffer, and not read, where there is none.
@group(0) @binding(4) var<storage, read> residual: array<Element>;
@group(0) @binding(5) var<storage, read_write> dx: array<Element>;
@group(1) @binding(0) var<uniform> params: Params;

override HAS_RESIDUAL: bool = false;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, params.width);
    let count = f32(params.width);
    // A row past the end reads the last one's statistics and writes nothing.
    let known = min(walk.row, max(params.rows, 1u) - 1u);
    let mean = statistics[2u * known];
    let rate = statistics[2u * known + 1u];
    var shifts = Element(0.0);
    var slopes = Element(0.0);
    var column = local.lane;
    for (var i = walk.first; i < walk.end; i += LANES) {
        let gw = g[i] * weight[column];
        shifts += gw;
        slopes += gw * (x[i] - mean);
        column += LANES;
    }
    let slope = team_sum(total(slopes), local) * rate * rate / count;
    var shift = 0.0;
    if params.centered == 1u {
        shift = team_sum(total(shifts), local) / count;
    }
    column = local.lane;
    for (var i = walk.first; i < walk.end; i += LANES) {
        var value = rate * (g[i] * weight[column] - shift - (x[i] - mean) * slope);
        if HAS_RESIDUAL {
            value += residual[i];
        }
        dx[i] = value;
        column += LANES;
    }
}
