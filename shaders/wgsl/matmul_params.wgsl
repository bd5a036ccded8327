// y [batch, m, n] = a b, with a [batch, m, k] and b [batch, k, n] of any strides. The batch axes are two, outer and inner.

struct Params {
    m: u32, n: u32, k: u32, outer: u32, inner: u32,
    a_outer: u32, a_inner: u32, a_row: u32, a_column: u32, a_offset: u32,
    b_outer: u32, b_inner: u32, b_row: u32, b_column: u32, b_offset: u32,
}

@group(1) @binding(0) var<uniform> params: Params;

// Where the matrices of one batch begin.
fn a_start(batch: u32) -> u32 {
    return params.a_offset + batch / params.inner * params.a_outer + batch % params.inner * params.a_inner;
}

fn b_start(batch: u32) -> u32 {
    return params.b_offset + batch / params.inner * params.b_outer + batch % params.inner * params.b_inner;
}
