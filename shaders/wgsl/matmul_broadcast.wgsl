// A block of ROWS rows (8 or 32) and 4 columns an invocation, four elements of the sums at a time. A subgroup's invocations vary
// along n; four of them load a's elements and hand them to the others. No shared memory and no barriers: for adapters that run on
// the CPU, where a subgroup is a vector and a load costs more than the arithmetic.

const INVOCATIONS = 64u;

// Four elements of a's rows `row` to `row + 3`: one of those rows, or one of its columns `k` to `k + 3`, by `quarter`. Past the
// edges rows repeat, and columns are 0.
fn load_a(start: u32, row: u32, k: u32, quarter: u32) -> vec4<f32> {
    if A_ALONG_K {
        return a_vector(start + min(row + quarter, params.m - 1u) * params.a_row + k);
    }
    return a_column(start + min(row, params.m - 4u), k + quarter);
}

// Four rows of the sums, with what the subgroup holds of a. Called with constants, so that the sums stay in registers.
fn accumulate(sums: ptr<function, array<vec4<f32>, ROWS>>, r: u32, held: vec4<f32>, b_rows: mat4x4<f32>) {
    var a_rows = mat4x4(
        subgroupBroadcast(held, 0u),
        subgroupBroadcast(held, 1u),
        subgroupBroadcast(held, 2u),
        subgroupBroadcast(held, 3u),
    );
    if !A_ALONG_K {
        a_rows = transpose(a_rows);
    }
    (*sums)[r] += b_rows * a_rows[0];
    (*sums)[r + 1u] += b_rows * a_rows[1];
    (*sums)[r + 2u] += b_rows * a_rows[2];
    (*sums)[r + 3u] += b_rows * a_rows[3];
}

fn multiply_broadcast(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32, member: u32) {
    let row = workgroup.y * ROWS;
    let column = (workgroup.x * INVOCATIONS + lane) * 4u;
    let quarter = member % 4u;
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        let a_at = a_start(batch);
        let columns = b_columns(batch, column);
        var sums: array<vec4<f32>, ROWS>;
        for (var k = 0u; k < params.k; k += 4u) {
            let b_rows = b_block(columns, k);
            accumulate(&sums, 0u, load_a(a_at, row, k, quarter), b_rows);
            accumulate(&sums, 4u, load_a(a_at, row + 4u, k, quarter), b_rows);
            if ROWS == 32u {
                accumulate(&sums, 8u, load_a(a_at, row + 8u, k, quarter), b_rows);
                accumulate(&sums, 12u, load_a(a_at, row + 12u, k, quarter), b_rows);
                accumulate(&sums, 16u, load_a(a_at, row + 16u, k, quarter), b_rows);
                accumulate(&sums, 20u, load_a(a_at, row + 20u, k, quarter), b_rows);
                accumulate(&sums, 24u, load_a(a_at, row + 24u, k, quarter), b_rows);
                accumulate(&sums, 28u, load_a(a_at, row + 28u, k, quarter), b_rows);
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            store_four(batch, row + r, column, sums[r]);
        }
    }
}
