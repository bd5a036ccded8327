// Sums of products of matrices without matrix units, an element an invocation.
#import common

struct Params { matrices: u32, rounds: u32, side: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let side = params.side;
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i >= params.matrices * side * side {
        return;
    }
    let row = i / side % side;
    var sum = 0.0;
    for (var number = 1u; number < 9u; number++) {
        for (var k = 0u; k < side; k++) {
            sum += x[row * side + k] * x[(number * side + k) * side + i % side];
        }
    }
    y[i] = f32(params.rounds) * sum;
}
