// Tiles in shared memory.
//
// The 16 x 16 outputs of a workgroup need the same 16 rows of a and 16 columns of b. The workgroup fetches them together, a
// slice of 16 along k at a time: each invocation loads one element of either, and all read them from shared memory, which is
// near. Every element now comes from memory once a workgroup instead of 16 times.
//
// Nobody may read a tile before all have written it, nor write the next before all have read this one: hence two barriers. Past
// the edges tiles hold zeros, which add nothing, so that no invocation has to leave early and miss a barrier.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

const TILE = 16u;

var<workgroup> a_tile: array<f32, 256>; // [TILE rows, TILE of k]
var<workgroup> b_tile: array<f32, 256>; // [TILE of k, TILE columns]

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = id.y;
    let column = id.x;
    var sum = 0.0;
    for (var depth = 0u; depth < params.k; depth += TILE) {
        a_tile[local.y * TILE + local.x] = load_a(row, depth + local.x);
        b_tile[local.y * TILE + local.x] = load_b(depth + local.y, column);
        workgroupBarrier();
        for (var k = 0u; k < TILE; k++) {
            sum += a_tile[local.y * TILE + k] * b_tile[k * TILE + local.x];
        }
        workgroupBarrier();
    }
    if row < params.m && column < params.n {
        y[row * params.n + column] = sum;
    }
}

fn load_a(row: u32, k: u32) -> f32 {
    if row < params.m && k < params.k {
        return a[row * params.k + k];
    }
    return 0.0;
}

fn load_b(k: u32, column: u32) -> f32 {
    if k < params.k && column < params.n {
        return b[k * params.n + column];
    }
    return 0.0;
}
