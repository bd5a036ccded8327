// A block of 4 x 4 outputs in registers.
//
// Shared memory is near, but registers are nearer. With one output an invocation, each multiply-add still reads two elements of
// shared memory. An invocation with 4 x 4 outputs reads 4 + 4 elements for 16 multiply-adds: a quarter as much. The outer
// product of a column of a and a row of b is the whole inner loop.
//
// The workgroup's tile grows to 64 x 64 outputs, so memory too is read a quarter as often.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

const TILE = 64u;
const DEPTH = 16u;

var<workgroup> a_tile: array<f32, 1024>; // [TILE, DEPTH]
var<workgroup> b_tile: array<f32, 1024>; // [DEPTH, TILE]

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile_row = workgroup.y * TILE;
    let tile_column = workgroup.x * TILE;
    let my_row = local.y * 4u;
    let my_column = local.x * 4u;
    // sums[i] is row i of the block: WGSL calls the vectors of a matrix its columns, here they are rows.
    var sums: mat4x4<f32>;
    for (var depth = 0u; depth < params.k; depth += DEPTH) {
        for (var at = lane; at < TILE * DEPTH; at += 256u) {
            a_tile[at] = load_a(tile_row + at / DEPTH, depth + at % DEPTH);
            b_tile[at] = load_b(depth + at / TILE, tile_column + at % TILE);
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let i = my_row * DEPTH + k;
            let j = k * TILE + my_column;
            let rows = vec4(a_tile[i], a_tile[i + DEPTH], a_tile[i + 2u * DEPTH], a_tile[i + 3u * DEPTH]);
            let columns = vec4(b_tile[j], b_tile[j + 1u], b_tile[j + 2u], b_tile[j + 3u]);
            sums += outer(rows, columns);
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            if tile_row + my_row + i < params.m && tile_column + my_column + j < params.n {
                y[(tile_row + my_row + i) * params.n + tile_column + my_column + j] = sums[i][j];
            }
        }
    }
}

fn outer(rows: vec4<f32>, columns: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(rows.x * columns, rows.y * columns, rows.z * columns, rows.w * columns);
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
