// A block of 8 x 8 outputs.
//
// The same idea once more: 8 + 8 elements of shared memory for 64 multiply-adds, half as many as 4 x 4 needs. The tile is 128 x
// 128 and 16 deep, so shared memory holds as much as before. 64 sums an invocation are about what a GPU has registers for while
// it keeps enough subgroups in flight; with more it would spill.
//
// The 8 rows are two vectors, 64 rows apart, and so are the columns: neighbouring invocations read neighbouring vectors, which
// lie in different banks of shared memory.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

const TILE = 128u;
const DEPTH = 16u;
const QUADS = 32u; // vectors in a row of a tile

var<workgroup> a_tile: array<vec4<f32>, 512>; // [DEPTH, QUADS]
var<workgroup> b_tile: array<vec4<f32>, 512>; // [DEPTH, QUADS]

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile_row = workgroup.y * TILE;
    let tile_column = workgroup.x * TILE;
    let loads_a = lane < 128u;
    // The block that this invocation loads: four of k, and a vector of rows of a or of columns of b.
    let my_k = lane % 128u / QUADS * 4u;
    let my_quad = lane % QUADS;
    var top_left: mat4x4<f32>;
    var top_right: mat4x4<f32>;
    var bottom_left: mat4x4<f32>;
    var bottom_right: mat4x4<f32>;
    for (var depth = 0u; depth < params.k; depth += DEPTH) {
        let at = my_k * QUADS + my_quad;
        if loads_a {
            let block = load_a(tile_row + my_quad * 4u, depth + my_k);
            a_tile[at] = block[0];
            a_tile[at + QUADS] = block[1];
            a_tile[at + 2u * QUADS] = block[2];
            a_tile[at + 3u * QUADS] = block[3];
        } else {
            let block = load_b(depth + my_k, tile_column + my_quad * 4u);
            b_tile[at] = block[0];
            b_tile[at + QUADS] = block[1];
            b_tile[at + 2u * QUADS] = block[2];
            b_tile[at + 3u * QUADS] = block[3];
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let top = a_tile[k * QUADS + local.y];
            let bottom = a_tile[k * QUADS + local.y + 16u];
            let left = b_tile[k * QUADS + local.x];
            let right = b_tile[k * QUADS + local.x + 16u];
            top_left += outer(top, left);
            top_right += outer(top, right);
            bottom_left += outer(bottom, left);
            bottom_right += outer(bottom, right);
        }
        workgroupBarrier();
    }
    let row = tile_row + local.y * 4u;
    let column = tile_column + local.x * 4u;
    store(row, column, top_left);
    store(row, column + 64u, top_right);
    store(row + 64u, column, bottom_left);
    store(row + 64u, column + 64u, bottom_right);
}

fn outer(rows: vec4<f32>, columns: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(rows.x * columns, rows.y * columns, rows.z * columns, rows.w * columns);
}

// Four rows of a, transposed: vector i holds them at k + i.
fn load_a(row: u32, k: u32) -> mat4x4<f32> {
    return transpose(mat4x4(a_vector(row, k), a_vector(row + 1u, k), a_vector(row + 2u, k), a_vector(row + 3u, k)));
}

fn load_b(k: u32, column: u32) -> mat4x4<f32> {
    return mat4x4(b_vector(k, column), b_vector(k + 1u, column), b_vector(k + 2u, column), b_vector(k + 3u, column));
}

fn a_vector(row: u32, k: u32) -> vec4<f32> {
    if row < params.m && k < params.k {
        return a[(row * params.k + k) / 4u];
    }
    return vec4(0.0);
}

fn b_vector(k: u32, column: u32) -> vec4<f32> {
    if k < params.k && column < params.n {
        return b[(k * params.n + column) / 4u];
    }
    return vec4(0.0);
}

fn store(row: u32, column: u32, block: mat4x4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if row + i < params.m && column < params.n {
            y[((row + i) * params.n + column) / 4u] = block[i];
        }
    }
}
