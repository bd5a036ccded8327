// y = (x - mean) rate weight + bias, row by row; mean is 0 unless `centered`, bias is not read unless `biased`.
#import team

struct Params { rows: u32, width: u32, centered: u32, biased: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> weight: array<Element>;
@group(0) @binding(2) var<storage, read> bias: array<Element>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;
@group(0) @binding(4) var<storage, read_write> statistics: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, params.width);
    let count = f32(params.width);
    var mean = 0.0;
    if params.centered == 1u {
        var sum = Element(0.0);
        for (var i = walk.first; i < walk.end; i += LANES) {
            sum += x[i];
        }
        mean = team_sum(total(sum), local) / count;
    }
    var squares = Element(0.0);
    for (var i = walk.first; i < walk.end; i += LANES) {
        let centered = x[i] - mean;
        squares += centered * centered;
    }
    let rate = 1.0 / sqrt(team_sum(total(squares), local) / count + params.eps);
    if local.lane == 0u && walk.row < params.rows {
        statistics[2u * walk.row] = mean;
        statistics[2u * walk.row + 1u] = rate;
    }
    var column = local.lane;
    for (var i = walk.first; i < walk.end; i += LANES) {
        var value = (x[i] - mean) * rate * weight[column];
        if params.biased == 1u {
            value += bias[column];
        }
        store(i, value);
        column += LANES;
    }
}
