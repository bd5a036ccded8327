// What workgroups that run one after the other read of b is the same, and still in the cache.
//
// Rung 9 numbers its workgroups along the rows of y: by the time that the next 32 rows come to the same columns, all of b has gone
// through the cache in between. Here the numbers run down the columns, and a workgroup is no wider than a subgroup needs: the
// strip of b that it reads, K rows of 64 columns, is what the next one reads too.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

const INVOCATIONS = 16u;

@compute @workgroup_size(16)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let row = workgroup.x * 32u;
    let column = (workgroup.y * INVOCATIONS + lane) * 4u;
    let quarter = member % 4u;
    // Eight blocks of four rows, named and not indexed, so that they stay in registers.
    var rows_0: mat4x4<f32>;
    var rows_4: mat4x4<f32>;
    var rows_8: mat4x4<f32>;
    var rows_12: mat4x4<f32>;
    var rows_16: mat4x4<f32>;
    var rows_20: mat4x4<f32>;
    var rows_24: mat4x4<f32>;
    var rows_28: mat4x4<f32>;
    for (var k = 0u; k < params.k; k += 4u) {
        let b_block = load_b(k, column);
        rows_0 += b_block * load_a(row + quarter, k);
        rows_4 += b_block * load_a(row + 4u + quarter, k);
        rows_8 += b_block * load_a(row + 8u + quarter, k);
        rows_12 += b_block * load_a(row + 12u + quarter, k);
        rows_16 += b_block * load_a(row + 16u + quarter, k);
        rows_20 += b_block * load_a(row + 20u + quarter, k);
        rows_24 += b_block * load_a(row + 24u + quarter, k);
        rows_28 += b_block * load_a(row + 28u + quarter, k);
    }
    store(row, column, rows_0);
    store(row + 4u, column, rows_4);
    store(row + 8u, column, rows_8);
    store(row + 12u, column, rows_12);
    store(row + 16u, column, rows_16);
    store(row + 20u, column, rows_20);
    store(row + 24u, column, rows_24);
    store(row + 28u, column, rows_28);
}

// Four rows of a, a vector each, of which this invocation loads one.
fn load_a(row: u32, k: u32) -> mat4x4<f32> {
    let mine = a[(min(row, params.m - 1u) * params.k + k) / 4u];
    return mat4x4(
        subgroupBroadcast(mine, 0u),
        subgroupBroadcast(mine, 1u),
        subgroupBroadcast(mine, 2u),
        subgroupBroadcast(mine, 3u),
    );
}

fn load_b(k: u32, column: u32) -> mat4x4<f32> {
    let at = (k * params.n + min(column, params.n - 4u)) / 4u;
    let next = params.n / 4u;
    return mat4x4(b[at], b[at + next], b[at + 2u * next], b[at + 3u * next]);
}

fn store(row: u32, column: u32, block: mat4x4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if row + i < params.m && column < params.n {
            y[((row + i) * params.n + column) / 4u] = block[i];
        }
    }
}
