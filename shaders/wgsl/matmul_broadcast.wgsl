// A block of ROWS rows (8 or 32) and 4 columns an invocation, four elements of the sums at a time. A subgroup's invocations vary
// along n; eight of them load a's elements and hand them to the others. No shared memory and no barriers: for adapters that run on
// the CPU, where a subgroup is a vector and a load costs more than the arithmetic.

// The fewest that whole subgroups of up to sixteen fill.
const INVOCATIONS = 16u;

// Four neighbours along k of one of a's rows `row` to `row + 7`, by `eighth`; or, where neighbours lie along m, the rows of one
// half at one of the columns `k` to `k + 3`. Past the edges rows repeat, and columns are 0.
fn load_a(start: u32, row: u32, k: u32, eighth: u32) -> vec4<f32> {
    if A_ALONG_K {
        return a_vector(start + min(row + eighth, params.m - 1u) * params.a_row + k);
    }
    return a_column(start + min(row + eighth / 4u * 4u, params.m - 4u), k + eighth % 4u);
}

// Eight rows of the sums, with what the subgroup holds of a. Called with constants, so that the sums stay in registers.
fn accumulate(sums: ptr<function, array<vec4<f32>, ROWS>>, r: u32, held: vec4<f32>, b_rows: mat4x4<f32>) {
    if A_ALONG_K {
        (*sums)[r] += b_rows * subgroupBroadcast(held, 0u);
        (*sums)[r + 1u] += b_rows * subgroupBroadcast(held, 1u);
        (*sums)[r + 2u] += b_rows * subgroupBroadcast(held, 2u);
        (*sums)[r + 3u] += b_rows * subgroupBroadcast(held, 3u);
        (*sums)[r + 4u] += b_rows * subgroupBroadcast(held, 4u);
        (*sums)[r + 5u] += b_rows * subgroupBroadcast(held, 5u);
        (*sums)[r + 6u] += b_rows * subgroupBroadcast(held, 6u);
        (*sums)[r + 7u] += b_rows * subgroupBroadcast(held, 7u);
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
        four_rows(sums, r, low_rows, b_rows);
        four_rows(sums, r + 4u, high_rows, b_rows);
    }
}

fn four_rows(sums: ptr<function, array<vec4<f32>, ROWS>>, r: u32, a_columns: mat4x4<f32>, b_rows: mat4x4<f32>) {
    let a_rows = transpose(a_columns);
    (*sums)[r] += b_rows * a_rows[0];
    (*sums)[r + 1u] += b_rows * a_rows[1];
    (*sums)[r + 2u] += b_rows * a_rows[2];
    (*sums)[r + 3u] += b_rows * a_rows[3];
}

fn multiply_broadcast(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32, member: u32) {
    let row = workgroup.x * ROWS;
    let column = (workgroup.y * INVOCATIONS + lane) * 4u;
    let eighth = member % 8u;
    // K, in words that hide it: Mesa 22 compiles a shader for every dispatch anew if it has grown by putting in the uniforms at which
    // loops end, and it knows no array's length.
    let depth = select(params.k, 0u, arrayLength(&a) == 0u);
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        let a_at = a_start(batch);
        let columns = b_columns(batch, column);
        var sums: array<vec4<f32>, ROWS>;
        for (var k = 0u; k < depth; k += 4u) {
            let b_rows = b_block(columns, k);
            accumulate(&sums, 0u, load_a(a_at, row, k, eighth), b_rows);
            if ROWS == 32u {
                accumulate(&sums, 8u, load_a(a_at, row + 8u, k, eighth), b_rows);
                accumulate(&sums, 16u, load_a(a_at, row + 16u, k, eighth), b_rows);
                accumulate(&sums, 24u, load_a(a_at, row + 24u, k, eighth), b_rows);
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            store_four(batch, row + r, column, sums[r]);
        }
    }
}
