// A block of 8 rows and 8 columns an invocation, without shared memory or barriers: for adapters that run on the CPU, where the
// invocations of a subgroup are the lanes of a vector. They vary along n, so one element of a serves them all.
#import matmul_scalars

const ROWS = 8u;
const INVOCATIONS = 32u;
const COLUMNS = 8u;

struct Block { low: array<vec4<f32>, ROWS>, high: array<vec4<f32>, ROWS> }

// Where this invocation's rows of a and columns of b begin.
struct Offsets { rows: array<u32, ROWS>, low: vec4<u32>, high: vec4<u32> }

// The terms that column `a_at` of a and row `b_at` of b add to the block.
fn accumulate(block: ptr<function, Block>, at: ptr<function, Offsets>, a_at: u32, b_at: u32) {
    let low = (*at).low + b_at;
    let high = (*at).high + b_at;
    let b_low = vec4(b_element(low.x), b_element(low.y), b_element(low.z), b_element(low.w));
    let b_high = vec4(b_element(high.x), b_element(high.y), b_element(high.z), b_element(high.w));
    for (var r = 0u; r < ROWS; r++) {
        let element = a_element(a_at + (*at).rows[r]);
        (*block).low[r] += element * b_low;
        (*block).high[r] += element * b_high;
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = workgroup.y * ROWS;
    let column = workgroup.x * INVOCATIONS * COLUMNS + lane;
    if row >= params.m || column >= params.n {
        return;
    }
    // Past the edges the last row and column are computed again, and not written.
    let columns = vec4(column) + vec4(0u, 1u, 2u, 3u) * INVOCATIONS;
    var at: Offsets;
    at.low = min(columns, vec4(params.n - 1u)) * params.b_column;
    at.high = min(columns + 4u * INVOCATIONS, vec4(params.n - 1u)) * params.b_column;
    for (var r = 0u; r < ROWS; r++) {
        at.rows[r] = min(row + r, params.m - 1u) * params.a_row;
    }
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        var a_at = a_start(batch);
        var b_at = b_start(batch);
        var block = Block();
        // Four at a time: llvmpipe counts iterations (`Traits::loop_fits`).
        for (var k = 0u; k < params.k / 4u; k++) {
            accumulate(&block, &at, a_at, b_at);
            accumulate(&block, &at, a_at + params.a_column, b_at + params.b_row);
            accumulate(&block, &at, a_at + 2u * params.a_column, b_at + 2u * params.b_row);
            accumulate(&block, &at, a_at + 3u * params.a_column, b_at + 3u * params.b_row);
            a_at += 4u * params.a_column;
            b_at += 4u * params.b_row;
        }
        for (var k = 0u; k < params.k % 4u; k++) {
            accumulate(&block, &at, a_at, b_at);
            a_at += params.a_column;
            b_at += params.b_row;
        }
        for (var r = 0u; r < ROWS; r++) {
            for (var c = 0u; c < 4u; c++) {
                store_one(batch, row + r, columns[c], block.low[r][c]);
                store_one(batch, row + r, columns[c] + 4u * INVOCATIONS, block.high[r][c]);
            }
        }
    }
}
