// y [batch, m, n] = a b, with a [batch, m, k] and b [batch, k, n] of any strides. The batch axes are two, outer and inner.
#import matmul_epilogue

struct Params {
    m: u32, n: u32, k: u32, outer: u32, inner: u32,
    a_outer: u32, a_inner: u32, a_row: u32, a_column: u32, a_offset: u32, a_dtype: u32, a_scaled: u32,
    b_outer: u32, b_inner: u32, b_row: u32, b_column: u32, b_offset: u32, b_dtype: u32, b_scaled: u32,
    scale: f32, has_bias: u32, has_residual: u32, operation: u32,
    key_0: u32, key_1: u32, dropped: u32, kept_scale: f32,
}

// What each operand was multiplied by before it was rounded to f16, where it was: a power of two.
@group(0) @binding(5) var<storage, read> a_scale: array<f32>;
@group(0) @binding(6) var<storage, read> b_scale: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

// How the operands are stored (`storage.wgsl`), and whether they were multiplied.
override A_DTYPE: u32 = 0u;
override B_DTYPE: u32 = 0u;
override A_SCALED: bool = false;
override B_SCALED: bool = false;
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

// Sums divided by what the operands were multiplied by: by two factors as near as can be, since one alone may be past what f32 holds.
fn undone(sums: vec4<f32>) -> vec4<f32> {
    if !A_SCALED && !B_SCALED {
        return sums;
    }
    var exponent = 0;
    if A_SCALED {
        exponent += 127 - i32(bitcast<u32>(a_scale[0]) >> 23u);
    }
    if B_SCALED {
        exponent += 127 - i32(bitcast<u32>(b_scale[0]) >> 23u);
    }
    return power_of_two(exponent / 2) * sums * power_of_two(exponent - exponent / 2);
}

fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(127 + exponent) << 23u);
}

// Writes one element of y, if it is inside.
fn store_one(batch: u32, row: u32, column: u32, sum: f32) {
    store_undone(batch, row, column, undone(vec4(sum)).x);
}

fn store_undone(batch: u32, row: u32, column: u32, sum: f32) {
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
fn store_four(batch: u32, row: u32, column: u32, scaled_sums: vec4<f32>) {
    let sums = undone(scaled_sums);
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
    store_undone(batch, row, column, sums.x);
    store_undone(batch, row, column + 1u, sums.y);
    store_undone(batch, row, column + 2u, sums.z);
    store_undone(batch, row, column + 3u, sums.w);
}
