// A block of ROWS rows (8 or 32) and twice 4 columns an invocation, four elements of the sums at a time. A subgroup's invocations
// vary along n; eight of them load a's elements and hand them to the others. No shared memory and no barriers: for adapters that
// run on the CPU, where a subgroup is a vector and a load costs more than the arithmetic.

// What a subgroup there has by default.
const INVOCATIONS = 8u;

// Four neighbours along k of one of a's rows `row` to `row + 7`, by `eighth`; or, where neighbours lie along m, the rows of one
// half at one of the columns `k` to `k + 3`. Past the edges rows repeat, and columns are 0.
fn load_a(start: u32, row: u32, k: u32, eighth: u32) -> vec4<f32> {
    if A_ALONG_K {
        return a_four(start + min(row + eighth, params.m - 1u) * params.a_row + k);
    }
    return a_column(start + min(row + eighth / 4u * 4u, params.m - 4u), k + eighth % 4u);
}

// Eight rows of the sums, with what the subgroup holds of a. Called with constants, so that the sums stay in registers.
fn accumulate(sums: ptr<function, array<mat2x4<f32>, ROWS>>, r: u32, held: vec4<f32>, left: mat4x4<f32>, right: mat4x4<f32>) {
    if A_ALONG_K {
        one_row(sums, r, subgroupBroadcast(held, 0u), left, right);
        one_row(sums, r + 1u, subgroupBroadcast(held, 1u), left, right);
        one_row(sums, r + 2u, subgroupBroadcast(held, 2u), left, right);
        one_row(sums, r + 3u, subgroupBroadcast(held, 3u), left, right);
        one_row(sums, r + 4u, subgroupBroadcast(held, 4u), left, right);
        one_row(sums, r + 5u, subgroupBroadcast(held, 5u), left, right);
        one_row(sums, r + 6u, subgroupBroadcast(held, 6u), left, right);
        one_row(sums, r + 7u, subgroupBroadcast(held, 7u), left, right);
    } else {
        let low_rows = mat4x4(
            subgroupBroadcast(held, 0u),
            subgroupBroadcast(held, 1u),
            subgroupBroadcast(held, 2u),
            subgroupBroadcast(held, 3u),
        );
        let high_rows = mat4x4(
            subgroupBroadcast(held, 4u),
            subgroupBroadcast(held, 5u),
            subgroupBroadcast(held, 6u),
            subgroupBroadcast(held, 7u),
        );
        four_rows(sums, r, transpose(low_rows), left, right);
        four_rows(sums, r + 4u, transpose(high_rows), left, right);
    }
}

fn four_rows(sums: ptr<function, array<mat2x4<f32>, ROWS>>, r: u32, a_rows: mat4x4<f32>, left: mat4x4<f32>, right: mat4x4<f32>) {
    one_row(sums, r, a_rows[0], left, right);
    one_row(sums, r + 1u, a_rows[1], left, right);
    one_row(sums, r + 2u, a_rows[2], left, right);
    one_row(sums, r + 3u, a_rows[3], left, right);
}

fn one_row(sums: ptr<function, array<mat2x4<f32>, ROWS>>, r: u32, a_row: vec4<f32>, left: mat4x4<f32>, right: mat4x4<f32>) {
    (*sums)[r][0] += left * a_row;
    (*sums)[r][1] += right * a_row;
}

fn multiply_broadcast(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32, member: u32) {
    let row = workgroup.x * ROWS;
    let column = (workgroup.y * 2u * INVOCATIONS + lane) * 4u;
    let eighth = member % 8u;
    // K, in words that hide it: Mesa 22 compiles a shader for every dispatch anew if it has grown by putting in the uniforms at which
    // loops end, and it knows no array's length.
    let depth = select(params.k, 0u, arrayLength(&a) == 0u);
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        let a_at = a_start(batch);
        let columns = b_columns(batch, column);
        let columns_right = b_columns(batch, column + 4u * INVOCATIONS);
        var sums: array<mat2x4<f32>, ROWS>;
        for (var k = 0u; k < depth; k += 4u) {
            let left = b_block(columns, k);
            let right = b_block(columns_right, k);
            accumulate(&sums, 0u, load_a(a_at, row, k, eighth), left, right);
            if ROWS == 32u {
                accumulate(&sums, 8u, load_a(a_at, row + 8u, k, eighth), left, right);
                accumulate(&sums, 16u, load_a(a_at, row + 16u, k, eighth), left, right);
                accumulate(&sums, 24u, load_a(a_at, row + 24u, k, eighth), left, right);
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            store_four(batch, row + r, column, sums[r][0]);
            store_four(batch, row + r, column + 4u * INVOCATIONS, sums[r][1]);
        }
    }
}
