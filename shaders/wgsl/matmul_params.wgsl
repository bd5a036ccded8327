// y [batch, m, n] = a b, with a [batch, m, k] and b [batch, k, n] of any strides. The batch axes are two, outer and inner.
#import matmul_epilogue

struct Params {
    m: u32, n: u32, k: u32, outer: u32, inner: u32,
    a_outer: u32, a_inner: u32, a_row: u32, a_column: u32, a_offset: u32,
    b_outer: u32, b_inner: u32, b_row: u32, b_column: u32, b_offset: u32,
    scale: f32, has_bias: u32, has_residual: u32, operation: u32, dtype: u32, scaled: u32,
}

@group(1) @binding(0) var<uniform> params: Params;

// The operands have changed places: y is written as [batch, n, m], and a bias is of those columns.
override TURNED: bool = false;

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

// Writes four neighbours of a row of y, those that are inside.
fn store_four(batch: u32, row: u32, column: u32, sums: vec4<f32>) {
    store_one(batch, row, column, sums.x);
    store_one(batch, row, column + 1u, sums.y);
    store_one(batch, row, column + 2u, sums.z);
    store_one(batch, row, column + 3u, sums.w);
}
