// A block of 8 rows and 8 columns an invocation, without shared memory or barriers: for adapters that run on the CPU, where the
// invocations of a subgroup are the lanes of a vector. They vary along n, so one element of a serves them all.
#import matmul_functions

const ROWS = 8u;
const INVOCATIONS = 32u;
const COLUMNS = 8u;

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
    let low = min(columns, vec4(params.n - 1u)) * params.b_column;
    let high = min(columns + 4u * INVOCATIONS, vec4(params.n - 1u)) * params.b_column;
    var rows: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        rows[r] = min(row + r, params.m - 1u) * params.a_row;
    }
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        var a_at = a_start(batch);
        var b_at = b_start(batch);
        var sums_low: array<vec4<f32>, ROWS>;
        var sums_high: array<vec4<f32>, ROWS>;
        for (var k = 0u; k < params.k; k++) {
            let b_low = vec4(b[b_at + low.x], b[b_at + low.y], b[b_at + low.z], b[b_at + low.w]);
            let b_high = vec4(b[b_at + high.x], b[b_at + high.y], b[b_at + high.z], b[b_at + high.w]);
            for (var r = 0u; r < ROWS; r++) {
                let element = a[a_at + rows[r]];
                sums_low[r] += element * b_low;
                sums_high[r] += element * b_high;
            }
            a_at += params.a_column;
            b_at += params.b_row;
        }
        for (var r = 0u; r < ROWS && row + r < params.m; r++) {
            let first = (batch * params.m + row + r) * params.n;
            for (var c = 0u; c < 4u; c++) {
                if columns[c] < params.n {
                    y[first + columns[c]] = sums_low[r][c];
                }
                if columns[c] + 4u * INVOCATIONS < params.n {
                    y[first + columns[c] + 4u * INVOCATIONS] = sums_high[r][c];
                }
            }
        }
    }
}
