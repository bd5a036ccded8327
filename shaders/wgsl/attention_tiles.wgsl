// For devices with fast shared memory: tiles of 64 rows by 32 columns of scores a workgroup of 256. Rows are what a workgroup
// sums for, columns what it goes through. Invocation (x, y) of 16 x 16 has rows 4 y to 4 y + 3 of columns x and x + 16, and of
// dimensions x, x + 16, .. of the sums, so that all sums stay in registers.
//
// The importing kernel says what rows and columns hold, 0 past their ends and past D: side 0 is the product of query and key,
// side 1 that of the output's gradient and the value.
//     fn row_element(side: u32, tile: Tile, row: u32, d: u32) -> f32
//     fn column_element(side: u32, tile: Tile, column: u32, d: u32) -> f32
#import attention_elements

// D, known when the pipeline is made, so that loops over it can be unrolled.
override HEAD_DIM: u32 = 256u;

const ROWS = 64u;
const COLUMNS = 32u;
const DEPTH = 16u; // dimensions that are multiplied at a time
const WIDE = 64u; // dimensions that are summed for at a time
const MOST_CHUNKS = 16u; // of 16 dimensions, in the largest D

// What lies side by side is read as a vector of four rows: of rows and weights, all rows of a dimension or of a column. Each line has
// some elements more than it holds, so that lines meet different banks.
const ROW_STRIDE = 68u;
const WEIGHT_STRIDE = 68u;
const COLUMN_STRIDE = 17u;
const WIDE_STRIDE = 65u;
const SHARED_STRIDE = 17u;

var<workgroup> row_tile: array<f32, 1088>;
var<workgroup> column_tile: array<f32, 2080>;
var<workgroup> weights: array<f32, 2176>;

struct Tile { batch: u32, query_head: u32, key_head: u32, row: u32, column: u32 }

// Four rows of two columns.
struct Scores { first: vec4<f32>, second: vec4<f32> }

// Four rows of all dimensions that an invocation sums. They are indexed by constants alone, as registers can be: each chunk has its
// lines (#repeat).
alias Sums = array<vec4<f32>, MOST_CHUNKS>;

// Rows times columns, summed over D.
fn products(side: u32, tile: Tile, x: u32, y: u32) -> Scores {
    var sums = Scores(vec4(0.0), vec4(0.0));
    for (var depth = 0u; depth < HEAD_DIM; depth += DEPTH) {
        workgroupBarrier();
        for (var row = y; row < ROWS; row += 16u) {
            row_tile[x * ROW_STRIDE + row] = row_element(side, tile, tile.row + row, depth + x);
        }
        for (var column = y; column < COLUMNS; column += 16u) {
            column_tile[column * COLUMN_STRIDE + x] = column_element(side, tile, tile.column + column, depth + x);
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let at = d * ROW_STRIDE + 4u * y;
            let rows = vec4(row_tile[at], row_tile[at + 1u], row_tile[at + 2u], row_tile[at + 3u]);
            sums.first += rows * column_tile[x * COLUMN_STRIDE + d];
            sums.second += rows * column_tile[(x + 16u) * COLUMN_STRIDE + d];
        }
    }
    return sums;
}

// Shares this invocation's weights with the others, for `accumulate`.
fn store_weights(mine: Scores, x: u32, y: u32) {
    workgroupBarrier();
    let at = x * WEIGHT_STRIDE + 4u * y;
    for (var i = 0u; i < 4u; i++) {
        weights[at + i] = mine.first[i];
        weights[at + 16u * WEIGHT_STRIDE + i] = mine.second[i];
    }
}

// sums += weights times columns.
fn accumulate(side: u32, tile: Tile, sums: ptr<function, Sums>, x: u32, y: u32) {
    #repeat PART 4 while PART * WIDE < HEAD_DIM
        stage_columns(side, tile, PART * WIDE, x, y);
        for (var column = 0u; column < COLUMNS; column++) {
            let rows = shared_weights(column, y);
            let at = column * WIDE_STRIDE + x;
            (*sums)[PART * 4u] += rows * column_tile[at];
            if PART * WIDE + 16u < HEAD_DIM {
                (*sums)[PART * 4u + 1u] += rows * column_tile[at + 16u];
            }
            if PART * WIDE + 32u < HEAD_DIM {
                (*sums)[PART * 4u + 2u] += rows * column_tile[at + 32u];
            }
            if PART * WIDE + 48u < HEAD_DIM {
                (*sums)[PART * 4u + 3u] += rows * column_tile[at + 48u];
            }
        }
    #end
}

// Puts the columns' dimensions behind `depth` into shared memory, WIDE of them.
fn stage_columns(side: u32, tile: Tile, depth: u32, x: u32, y: u32) {
    workgroupBarrier();
    for (var i = 16u * y + x; i < COLUMNS * WIDE; i += 256u) {
        column_tile[i / WIDE * WIDE_STRIDE + i % WIDE] = column_element(side, tile, tile.column + i / WIDE, depth + i % WIDE);
    }
    workgroupBarrier();
}

fn shared_weights(column: u32, y: u32) -> vec4<f32> {
    let at = column * WEIGHT_STRIDE + 4u * y;
    return vec4(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]);
}

// Over the sixteen invocations that share four rows, in a fixed order.
fn sum_of_rows(mine: vec4<f32>, x: u32, y: u32) -> vec4<f32> {
    share_rows(mine, x, y);
    var sum = vec4(0.0);
    for (var other = 0u; other < 16u; other++) {
        sum += shared_rows(other, y);
    }
    return sum;
}

fn largest_of_rows(mine: vec4<f32>, x: u32, y: u32) -> vec4<f32> {
    share_rows(mine, x, y);
    var most = mine;
    for (var other = 0u; other < 16u; other++) {
        most = max(most, shared_rows(other, y));
    }
    return most;
}

fn share_rows(mine: vec4<f32>, x: u32, y: u32) {
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
        row_tile[(4u * y + i) * SHARED_STRIDE + x] = mine[i];
    }
    workgroupBarrier();
}

fn shared_rows(x: u32, y: u32) -> vec4<f32> {
    let at = 4u * y * SHARED_STRIDE + x;
    return vec4(row_tile[at], row_tile[at + SHARED_STRIDE], row_tile[at + 2u * SHARED_STRIDE], row_tile[at + 3u * SHARED_STRIDE]);
}
