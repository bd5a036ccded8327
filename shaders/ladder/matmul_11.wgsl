// Twice the columns an invocation, and every element of a is loaded half as often.
//
// On a CPU loads are still half of rung 10's time: an invocation of its blocks of 32 rows and 4 columns loads as many numbers of b
// as of a. Here it has two vectors of columns, a workgroup's width apart, and eight invocations share the loads of a instead of
// four. Sixteen columns, or 64 rows of eight, are slower again.
//
// This is the kernel that the project uses on software adapters: `matmul_subgroup`, which adds operands that lie any way, batches
// and an epilogue.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

const INVOCATIONS = 8u;

// Four rows of sums, at four columns and at the four that lie a workgroup's width to the right.
struct Strip { left: mat4x4<f32>, right: mat4x4<f32> }

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let row = workgroup.x * 32u;
    let column = (workgroup.y * 2u * INVOCATIONS + lane) * 4u;
    // Eight strips of four rows, named and not indexed, so that they stay in registers.
    var rows_0: Strip;
    var rows_4: Strip;
    var rows_8: Strip;
    var rows_12: Strip;
    var rows_16: Strip;
    var rows_20: Strip;
    var rows_24: Strip;
    var rows_28: Strip;
    for (var k = 0u; k < params.k; k += 4u) {
        let b_block = Strip(load_b(k, column), load_b(k, column + 4u * INVOCATIONS));
        let held_0 = load_a(row + member % 8u, k);
        rows_0 = gained(rows_0, first_four(held_0), b_block);
        rows_4 = gained(rows_4, last_four(held_0), b_block);
        let held_8 = load_a(row + 8u + member % 8u, k);
        rows_8 = gained(rows_8, first_four(held_8), b_block);
        rows_12 = gained(rows_12, last_four(held_8), b_block);
        let held_16 = load_a(row + 16u + member % 8u, k);
        rows_16 = gained(rows_16, first_four(held_16), b_block);
        rows_20 = gained(rows_20, last_four(held_16), b_block);
        let held_24 = load_a(row + 24u + member % 8u, k);
        rows_24 = gained(rows_24, first_four(held_24), b_block);
        rows_28 = gained(rows_28, last_four(held_24), b_block);
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

fn gained(strip: Strip, a_rows: mat4x4<f32>, b_block: Strip) -> Strip {
    return Strip(strip.left + b_block.left * a_rows, strip.right + b_block.right * a_rows);
}

// The vector of a that this invocation holds for eight rows.
fn load_a(row: u32, k: u32) -> vec4<f32> {
    return a[(min(row, params.m - 1u) * params.k + k) / 4u];
}

fn first_four(held: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        subgroupBroadcast(held, 0u),
        subgroupBroadcast(held, 1u),
        subgroupBroadcast(held, 2u),
        subgroupBroadcast(held, 3u),
    );
}

fn last_four(held: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        subgroupBroadcast(held, 4u),
        subgroupBroadcast(held, 5u),
        subgroupBroadcast(held, 6u),
        subgroupBroadcast(held, 7u),
    );
}

fn load_b(k: u32, column: u32) -> mat4x4<f32> {
    let at = (k * params.n + min(column, params.n - 4u)) / 4u;
    let next = params.n / 4u;
    return mat4x4(b[at], b[at + next], b[at + 2u * next], b[at + 3u * next]);
}

fn store(row: u32, column: u32, strip: Strip) {
    for (var i = 0u; i < 4u; i++) {
        if row + i < params.m && column < params.n {
            y[((row + i) * params.n + column) / 4u] = strip.left[i];
        }
        if row + i < params.m && column + 4u * INVOCATIONS < params.n {
            y[((row + i) * params.n + column) / 4u + INVOCATIONS] = strip.right[i];
        }
    }
}
