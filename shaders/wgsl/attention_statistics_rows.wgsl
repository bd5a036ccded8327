// What both gradients of attention take of each query: its log sum, and the product of its output and that's gradient.
#import team

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> log_sums: array<f32>;
@group(0) @binding(1) var<storage, read> output: array<Element>;
@group(0) @binding(2) var<storage, read> grad: array<Element>;
@group(0) @binding(3) var<storage, read_write> statistics: array<vec2<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, params.width);
    var sum = Element(0.0);
    for (var i = walk.first; i < walk.end; i += LANES) {
        sum += output[i] * grad[i];
    }
    let dot = team_sum(total(sum), local);
    if local.lane == 0u && walk.row < params.rows {
        statistics[walk.row] = vec2(log_sums[walk.row], dot);
    }
}
