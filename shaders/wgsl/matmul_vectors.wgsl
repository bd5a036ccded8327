// Operands that lie in whole vectors of four, each along one of its axes. b may be stored as f16 or bf16; then it lies in whole
// vectors of eight.
#import matmul_params
#import storage

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<u32>>;

// b's storage type.
override DTYPE: u32 = 0u;
// Whether a's vectors lie along k, or along m; and b's along n, or along k.
override A_ALONG_K: bool = true;
override B_ALONG_N: bool = true;

const FOUR = vec4(0u, 1u, 2u, 3u);

// The four elements from `at` on.
fn a_vector(at: u32) -> vec4<f32> {
    return a[at / 4u];
}

fn b_vector(at: u32) -> vec4<f32> {
    if DTYPE == 0u {
        return bitcast<vec4<f32>>(b[at / 4u]);
    }
    let eight = b[at / 8u];
    let words = select(eight.xy, eight.zw, at % 8u == 4u);
    return vec4(widen_low(DTYPE, words.x), widen_high(DTYPE, words.x), widen_low(DTYPE, words.y), widen_high(DTYPE, words.y));
}

// Where a's rows `row` to `row + 3` begin. Past the edge rows repeat.
fn a_rows(batch: u32, row: u32) -> vec4<u32> {
    let along_k = min(vec4(row) + FOUR, vec4(params.m - 1u)) * params.a_row;
    return a_start(batch) + select(vec4(min(row, params.m - 4u)), along_k, A_ALONG_K);
}

// Four rows of a at columns `k` to `k + 3`: a vector of the rows for each column. Past the edge columns are 0.
fn a_block(rows: vec4<u32>, k: u32) -> mat4x4<f32> {
    if A_ALONG_K {
        if k >= params.k {
            return mat4x4<f32>();
        }
        let at = rows + k;
        return transpose(mat4x4(a_vector(at.x), a_vector(at.y), a_vector(at.z), a_vector(at.w)));
    }
    return mat4x4(a_column(rows.x, k), a_column(rows.x, k + 1u), a_column(rows.x, k + 2u), a_column(rows.x, k + 3u));
}

fn a_column(row: u32, k: u32) -> vec4<f32> {
    return select(vec4(0.0), a_vector(row + min(k, params.k - 1u) * params.a_column), k < params.k);
}

// Where b's columns `column` to `column + 3` begin. Past the edge columns repeat.
fn b_columns(batch: u32, column: u32) -> vec4<u32> {
    let along_k = min(vec4(column) + FOUR, vec4(params.n - 1u)) * params.b_column;
    return b_start(batch) + select(along_k, vec4(min(column, params.n - 4u)), B_ALONG_N);
}

// Four columns of b at rows `k` to `k + 3`: a vector of the columns for each row. Past the edge rows repeat.
fn b_block(columns: vec4<u32>, k: u32) -> mat4x4<f32> {
    if B_ALONG_N {
        let at = columns.x + min(vec4(k) + FOUR, vec4(params.k - 1u)) * params.b_row;
        return mat4x4(b_vector(at.x), b_vector(at.y), b_vector(at.z), b_vector(at.w));
    }
    let at = columns + min(k, params.k - 4u);
    return transpose(mat4x4(b_vector(at.x), b_vector(at.y), b_vector(at.z), b_vector(at.w)));
}
