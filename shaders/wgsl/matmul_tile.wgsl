// A tile of TILE x TILE a workgroup: slices of both operands pass through shared memory, a block of 4 x 4 for each invocation of half
// of it, while the next ones are on their way into registers. The importing file says how large TILE is (32 with INVOCATIONS of 64;
// 64 or 128 with 256).

// Vectors of four in a row of a tile, and rows of a slice.
const VECTORS = TILE / 4u;
const DEPTH = 8u * INVOCATIONS / TILE;
// An invocation has 4 x 4 of each quarter of a 128 x 128 tile, so that neighbours always meet neighbouring words.
const GROUPS = max(TILE / 64u, 1u);
const SUMS = 4u * GROUPS * GROUPS;
// Invocations that share four rows of sums.
const ACROSS = VECTORS / GROUPS;

var<workgroup> a_tile: array<vec4<f32>, 2u * INVOCATIONS>;
var<workgroup> b_tile: array<vec4<f32>, 2u * INVOCATIONS>;

// Where row `k` of a slice holds a vector. Turned by k, so that those who store a block of four rows meet different banks.
fn slot(k: u32, vector: u32) -> u32 {
    return k * VECTORS + (vector ^ (k / 4u * GROUPS));
}

// Four rows and four columns of the sums. Called with constants, so that the sums stay in registers.
fn accumulate(sums: ptr<function, array<vec4<f32>, SUMS>>, first: u32, a_rows: vec4<f32>, b_columns: vec4<f32>) {
    (*sums)[first] += a_rows.x * b_columns;
    (*sums)[first + 1u] += a_rows.y * b_columns;
    (*sums)[first + 2u] += a_rows.z * b_columns;
    (*sums)[first + 3u] += a_rows.w * b_columns;
}

fn accumulate_row(sums: ptr<function, array<vec4<f32>, SUMS>>, k: u32, my_row: u32, my_column: u32) {
    let a_low = a_tile[slot(k, my_row)];
    let b_low = b_tile[slot(k, my_column)];
    accumulate(sums, 0u, a_low, b_low);
    if GROUPS == 2u {
        let a_high = a_tile[slot(k, my_row + ACROSS)];
        let b_high = b_tile[slot(k, my_column + ACROSS)];
        accumulate(sums, 4u, a_low, b_high);
        accumulate(sums, 8u, a_high, b_low);
        accumulate(sums, 12u, a_high, b_high);
    }
}

fn store_sums(sums: ptr<function, array<vec4<f32>, SUMS>>, first: u32, batch: u32, row: u32, column: u32) {
    store_four(batch, row, column, (*sums)[first]);
    store_four(batch, row + 1u, column, (*sums)[first + 1u]);
    store_four(batch, row + 2u, column, (*sums)[first + 2u]);
    store_four(batch, row + 3u, column, (*sums)[first + 3u]);
}

fn multiply_tile(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32) {
    let tile_row = workgroup.y * TILE;
    let tile_column = workgroup.x * TILE;
    let my_row = lane / ACROSS;
    let my_column = lane % ACROSS;
    // Half of the invocations load blocks of 4 x 4 of a, the others of b; neighbours along the axis that is dense in memory.
    let loads_a = lane < INVOCATIONS / 2u;
    let which = lane % (INVOCATIONS / 2u);
    let along_k = select(!B_ALONG_N, A_ALONG_K, loads_a);
    let vector = select(which % VECTORS, which / (DEPTH / 4u), along_k);
    let load_k = 4u * select(which / VECTORS, which % (DEPTH / 4u), along_k);
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        let a_lines = a_rows(batch, tile_row + 4u * vector);
        let b_lines = b_columns(batch, tile_column + 4u * vector);
        var next: mat4x4<f32>;
        if loads_a {
            next = a_block(a_lines, load_k);
        } else {
            next = b_block(b_lines, load_k);
        }
        var sums: array<vec4<f32>, SUMS>;
        for (var depth = 0u; depth < params.k; depth += DEPTH) {
            workgroupBarrier();
            if loads_a {
                a_tile[slot(load_k, vector)] = next[0];
                a_tile[slot(load_k + 1u, vector)] = next[1];
                a_tile[slot(load_k + 2u, vector)] = next[2];
                a_tile[slot(load_k + 3u, vector)] = next[3];
            } else {
                b_tile[slot(load_k, vector)] = next[0];
                b_tile[slot(load_k + 1u, vector)] = next[1];
                b_tile[slot(load_k + 2u, vector)] = next[2];
                b_tile[slot(load_k + 3u, vector)] = next[3];
            }
            workgroupBarrier();
            if depth + DEPTH < params.k {
                if loads_a {
                    next = a_block(a_lines, depth + DEPTH + load_k);
                } else {
                    next = b_block(b_lines, depth + DEPTH + load_k);
                }
            }
            for (var k = 0u; k < DEPTH; k += 4u) {
                accumulate_row(&sums, k, my_row, my_column);
                accumulate_row(&sums, k + 1u, my_row, my_column);
                accumulate_row(&sums, k + 2u, my_row, my_column);
                accumulate_row(&sums, k + 3u, my_row, my_column);
            }
        }
        let row = tile_row + 4u * my_row;
        let column = tile_column + 4u * my_column;
        store_sums(&sums, 0u, batch, row, column);
        if GROUPS == 2u {
            store_sums(&sums, 4u, batch, row, column + 64u);
            store_sums(&sums, 8u, batch, row + 64u, column);
            store_sums(&sums, 12u, batch, row + 64u, column + 64u);
        }
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    multiply_tile(workgroup, workgroups, lane);
}
