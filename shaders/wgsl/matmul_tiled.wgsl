// A tile of 64 x 64 a workgroup, 4 x 4 an invocation: 16 columns of a and 16 rows of b at a time pass through shared memory.
#import matmul_params

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;

const TILE = 64u;
const DEPTH = 16u;
// Columns of a lie `STRIDE` apart, so that the invocations that store one row of a meet different banks.
const STRIDE = 68u;

var<workgroup> a_tile: array<f32, 1088>;
var<workgroup> b_tile: array<f32, 1088>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile_row = workgroup.y * TILE;
    let tile_column = workgroup.x * TILE;
    let my_row = lane / 16u * 4u;
    let my_column = lane % 16u * 4u;
    // Neighbouring invocations load along the axis whose elements are neighbours in memory.
    let a_along_k = params.a_column == 1u;
    let b_along_n = params.b_column == 1u;
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        let a_first = a_start(batch);
        let b_first = b_start(batch);
        var sums: array<vec4<f32>, 4>;
        for (var depth = 0u; depth < params.k; depth += DEPTH) {
            for (var i = 0u; i < 4u; i++) {
                let at = lane + i * 256u;
                let a_k = select(at / TILE, at % DEPTH, a_along_k);
                let a_row = select(at % TILE, at / DEPTH, a_along_k);
                var value = 0.0;
                if tile_row + a_row < params.m && depth + a_k < params.k {
                    value = a[a_first + (tile_row + a_row) * params.a_row + (depth + a_k) * params.a_column];
                }
                a_tile[a_k * STRIDE + a_row] = value;
                let b_k = select(at % DEPTH, at / TILE, b_along_n);
                let b_column = select(at / DEPTH, at % TILE, b_along_n);
                value = 0.0;
                if tile_column + b_column < params.n && depth + b_k < params.k {
                    value = b[b_first + (depth + b_k) * params.b_row + (tile_column + b_column) * params.b_column];
                }
                b_tile[b_k * STRIDE + b_column] = value;
            }
            workgroupBarrier();
            for (var k = 0u; k < DEPTH; k++) {
                let a_at = k * STRIDE + my_row;
                let b_at = k * STRIDE + my_column;
                let b_row = vec4(b_tile[b_at], b_tile[b_at + 1u], b_tile[b_at + 2u], b_tile[b_at + 3u]);
                sums[0] += a_tile[a_at] * b_row;
                sums[1] += a_tile[a_at + 1u] * b_row;
                sums[2] += a_tile[a_at + 2u] * b_row;
                sums[3] += a_tile[a_at + 3u] * b_row;
            }
            workgroupBarrier();
        }
        for (var r = 0u; r < 4u; r++) {
            store_four(batch, tile_row + my_row + r, tile_column + my_column, sums[r]);
        }
    }
}
