// Neighbouring invocations along n.
//
// Rows and columns change places, and nothing else. The invocations of a subgroup now read neighbouring elements of b, which
// come as one cache line (the loads are "coalesced"), and all the same element of a, which comes once. Their stores are
// neighbours too.
//
// Still two loads for every multiply-add.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y;
    let column = id.x;
    if row >= params.m || column >= params.n {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < params.k; k++) {
        sum += a[row * params.k + k] * b[k * params.n + column];
    }
    y[row * params.n + column] = sum;
}
