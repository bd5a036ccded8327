// Softmax of rows.
#import team

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, params.width);
    // The first of two reads of a row: what was summed moves to every new largest (Milakov and Gimelshein 2018, arXiv:1805.02867).
    var most = -3.4028234e38;
    var sums = Element(0.0);
    for (var i = walk.first; i < walk.end; i += LANES) {
        let value = x[i];
        let before = most;
        most = max(most, largest(value));
        sums = exp(before - most) * sums + exp(value - most);
    }
    let offset = team_max(most, local);
    let scale = 1.0 / team_sum(exp(most - offset) * total(sums), local);
    for (var i = walk.first; i < walk.end; i += LANES) {
        y[i] = exp(x[i] - offset) * scale;
    }
}
