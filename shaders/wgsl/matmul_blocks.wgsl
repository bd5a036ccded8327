// Blocks of 4 x 4 of operands that lie in whole vectors of four, each along one of its axes. The importing file says how they are stored:
// `Four` and `Block`, a vector and a matrix of four; and four elements of an operand from `at` on, a multiple of four:
//     fn a_four(at: u32) -> Four
//     fn b_four(at: u32) -> Four
#import matmul_params

// Whether a's vectors lie along k, or along m; and b's along n, or along k.
override A_ALONG_K: bool = true;
override B_ALONG_N: bool = true;

const FOUR = vec4(0u, 1u, 2u, 3u);

// Where a's rows `row` to `row + 3` begin. Past the edge rows repeat.
fn a_rows(batch: u32, row: u32) -> vec4<u32> {
    let along_k = min(vec4(row) + FOUR, vec4(params.m - 1u)) * params.a_row;
    return a_start(batch) + select(vec4(min(row, params.m - 4u)), along_k, A_ALONG_K);
}

// Four rows of a at columns `k` to `k + 3`: a vector of the rows for each column. Past the edge columns are 0.
fn a_block(rows: vec4<u32>, k: u32) -> Block {
    if A_ALONG_K {
        if k >= params.k {
            return Block();
        }
        let at = rows + k;
        return transpose(Block(a_four(at.x), a_four(at.y), a_four(at.z), a_four(at.w)));
    }
    return Block(a_column(rows.x, k), a_column(rows.x, k + 1u), a_column(rows.x, k + 2u), a_column(rows.x, k + 3u));
}

fn a_column(row: u32, k: u32) -> Four {
    return select(Four(), a_four(row + min(k, params.k - 1u) * params.a_column), k < params.k);
}

// Where b's columns `column` to `column + 3` begin. Past the edge columns repeat.
fn b_columns(batch: u32, column: u32) -> vec4<u32> {
    let along_k = min(vec4(column) + FOUR, vec4(params.n - 1u)) * params.b_column;
    return b_start(batch) + select(along_k, vec4(min(column, params.n - 4u)), B_ALONG_N);
}

// Four columns of b at rows `k` to `k + 3`: a vector of the columns for each row. Past the edge rows repeat.
fn b_block(columns: vec4<u32>, k: u32) -> Block {
    if B_ALONG_N {
        let at = columns.x + min(vec4(k) + FOUR, vec4(params.k - 1u)) * params.b_row;
        return Block(b_four(at.x), b_four(at.y), b_four(at.z), b_four(at.w));
    }
    let at = columns + min(k, params.k - 4u);
    return transpose(Block(b_four(at.x), b_four(at.y), b_four(at.z), b_four(at.w)));
}
