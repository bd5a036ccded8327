// Operands of any strides, which may be stored as f16 or bf16.
#import matmul_params
#import storage

@group(0) @binding(0) var<storage, read> a: array<u32>;
@group(0) @binding(1) var<storage, read> b: array<u32>;

// Whether a's neighbours lie along k, or along m; and b's along n, or along k.
override A_ALONG_K: bool = true;
override B_ALONG_N: bool = true;

const FOUR = vec4(0u, 1u, 2u, 3u);

fn a_element(at: u32) -> f32 {
    if A_DTYPE == 0u {
        return bitcast<f32>(a[at]);
    }
    return one_of_two(A_DTYPE, a[at / 2u], at);
}

fn b_element(at: u32) -> f32 {
    if B_DTYPE == 0u {
        return bitcast<f32>(b[at]);
    }
    return one_of_two(B_DTYPE, b[at / 2u], at);
}

fn one_of_two(dtype: u32, word: u32, at: u32) -> f32 {
    return select(widen_low(dtype, word), widen_high(dtype, word), at % 2u == 1u);
}

// Where a's rows `row` to `row + 3` begin. Past the edge rows repeat.
fn a_rows(batch: u32, row: u32) -> vec4<u32> {
    return a_start(batch) + min(vec4(row) + FOUR, vec4(params.m - 1u)) * params.a_row;
}

// Four rows of a at columns `k` to `k + 3`: a vector of the rows for each column. Past the edge columns are 0.
fn a_block(rows: vec4<u32>, k: u32) -> mat4x4<f32> {
    return mat4x4(a_column(rows, k), a_column(rows, k + 1u), a_column(rows, k + 2u), a_column(rows, k + 3u));
}

fn a_column(rows: vec4<u32>, k: u32) -> vec4<f32> {
    if k >= params.k {
        return vec4(0.0);
    }
    let at = rows + k * params.a_column;
    return vec4(a_element(at.x), a_element(at.y), a_element(at.z), a_element(at.w));
}

// Where b's columns `column` to `column + 3` begin. Past the edge columns repeat.
fn b_columns(batch: u32, column: u32) -> vec4<u32> {
    return b_start(batch) + min(vec4(column) + FOUR, vec4(params.n - 1u)) * params.b_column;
}

// Four columns of b at rows `k` to `k + 3`: a vector of the columns for each row. Past the edge rows are 0.
fn b_block(columns: vec4<u32>, k: u32) -> mat4x4<f32> {
    return mat4x4(b_row(columns, k), b_row(columns, k + 1u), b_row(columns, k + 2u), b_row(columns, k + 3u));
}

fn b_row(columns: vec4<u32>, k: u32) -> vec4<f32> {
    if k >= params.k {
        return vec4(0.0);
    }
    let at = columns + k * params.b_row;
    return vec4(b_element(at.x), b_element(at.y), b_element(at.z), b_element(at.w));
}
