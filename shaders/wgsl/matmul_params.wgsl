// y [batch, m, n] = a b, with a [batch, m, k] and b [batch, k, n] of any strides. The batch axes are two, outer and inner.
#import matmul_epilogue

struct Params {
    m: u32, n: u32, k: u32, outer: u32, inner: u32,
    a_outer: u32, a_inner: u32, a_row: u32, a_column: u32, a_offset: u32,
    b_outer: u32, b_inner: u32, b_row: u32, b_column: u32, b_offset: u32,
    scale: f32, has_bias: u32, has_residual: u32, operation: u32, dtype: u32, scaled: u32,
}

@group(1) @binding(0) var<uniform> params: Params;

// Where the matrices of one batch begin.
fn a_start(batch: u32) -> u32 {
    return params.a_offset + batch / params.inner * params.a_outer + batch % params.inner * params.a_inner;
}

fn b_start(batch: u32) -> u32 {
    return params.b_offset + batch / params.inner * params.b_outer + batch % params.inner * params.b_inner;
}

// Writes four neighbours of a row of y, those that are inside.
fn store_four(batch: u32, row: u32, column: u32, sums: vec4<f32>) {
    if row >= params.m {
        return;
    }
    let at = (batch * params.m + row) * params.n + column;
    if column < params.n {
        store(at, column, sums.x);
    }
    if column + 1u < params.n {
        store(at + 1u, column + 1u, sums.y);
    }
    if column + 2u < params.n {
        store(at + 2u, column + 2u, sums.z);
    }
    if column + 3u < params.n {
        store(at + 3u, column + 3u, sums.w);
    }
}
