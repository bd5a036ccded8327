// Vectors of four, and a transposed on its way.
//
// A load of 16 bytes costs little more than one of 4, from memory and from shared memory alike. b's rows are read in vectors as
// they lie. Of a, an invocation needs four rows of one column: those are a vector if the tile is stored transposed. So an
// invocation loads 4 x 4 elements of a, exchanges rows and columns in registers, and stores four vectors.
//
// Half of the invocations load a and half load b, 4 x 4 elements each. k and n are multiples of 4.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

const TILE = 64u;
const DEPTH = 32u;
const QUADS = 16u; // vectors in a row of a tile

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
    var sums: mat4x4<f32>;
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
            sums += outer(a_tile[k * QUADS + local.y], b_tile[k * QUADS + local.x]);
        }
        workgroupBarrier();
    }
    store(tile_row + local.y * 4u, tile_column + local.x * 4u, sums);
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
