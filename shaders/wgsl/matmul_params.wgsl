// y [batch, m, n] = a b, with a [batch, m, k] and b [batch, k, n] of any strides. The batch axes are two, outer and inner.
#import matmul_epilogue

struct Params {
    m: u32, n: u32, k: u32, outer: u32, inner: u32,
    a_outer: u32, a_inner: u32, a_row: u32, a_column: u32, a_offset: u32,
    b_outer: u32, b_inner: u32, b_row: u32, b_column: u32, b_offset: u32,
    scale: f32, has_bias: u32, has_residual: u32, operation: u32,
    key_0: u32, key_1: u32, dropped: u32, kept_scale: f32, dtype: u32, scaled: u32,
}

@group(1) @binding(0) var<uniform> params: Params;

// The operands have changed places: y is written as [batch, n, m], and a bias is of those columns.
override TURNED: bool = false;
// y is written by rows, which are whole vectors of four; matters where something drops.
override IN_FOURS: bool = false;

// Where the matrices of one batch begin.
fn a_start(batch: u32) -> u32 {
    return params.a_offset + batch / params.inner * params.a_outer + batch % params.inner * params.a_inner;
}

fn b_start(batch: u32) -> u32 {
    return params.b_offset + batch / params.inner * params.b_outer + batch % params.inner * params.b_inner;
}

// Writes one element of y, if it is inside.
fn store_one(batch: u32, row: u32, column: u32, sum: f32) {
    if row < params.m && column < params.n {
        let matrix = batch * params.m * params.n;
        if TURNED {
            store(matrix + column * params.m + row, row, sum);
        } else {
            store(matrix + row * params.n + column, column, sum);
        }
    }
}

// Writes four neighbours of a row of y, those that are inside; the first is in a column that is a multiple of four.
fn store_four(batch: u32, row: u32, column: u32, sums: vec4<f32>) {
    if DROPS && IN_FOURS {
        if row < params.m && column < params.n {
            let at = (batch * params.m + row) * params.n + column;
            let drawn = drawn_at(at);
            store_drawn(at, column, sums.x, drawn.x);
            store_drawn(at + 1u, column + 1u, sums.y, drawn.y);
            store_drawn(at + 2u, column + 2u, sums.z, drawn.z);
            store_drawn(at + 3u, column + 3u, sums.w, drawn.w);
        }
        return;
    }
    store_one(batch, row, column, sums.x);
    store_one(batch, row, column + 1u, sums.y);
    store_one(batch, row, column + 2u, sums.z);
    store_one(batch, row, column + 3u, sums.w);
}
