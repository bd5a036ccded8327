// Softmax of rows.
#import team

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let local = vec2(index % LANES, index / LANES);
    let walk = walk_of(workgroup, workgroups, local, params.rows, params.width);
    var most = Element(-3.4028234e38);
    for (var i = walk.first; i < walk.end; i += LANES) {
        most = max(most, x[i]);
    }
    let offset = team_max(largest(most), local);
    var sum = Element(0.0);
    for (var i = walk.first; i < walk.end; i += LANES) {
        let e = exp(x[i] - offset);
        y[i] = e;
        sum += e;
    }
    let scale = 1.0 / team_sum(total(sum), local);
    for (var i = walk.first; i < walk.end; i += LANES) {
        y[i] *= scale;
    }
}
