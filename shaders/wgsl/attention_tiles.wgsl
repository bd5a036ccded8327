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
const DEPTH = 16u;
const MOST_CHUNKS = 16u; // of 16 dimensions, in the largest D
// An element more than a row has, so that reading down a column meets different banks.
const STRIDE = 17u;
const WEIGHT_STRIDE = 33u;

var<workgroup> row_tile: array<f32, 1088>;
var<workgroup> column_tile: array<f32, 544>;
var<workgroup> weights: array<f32, 2112>;

struct Tile { batch: u32, query_head: u32, key_head: u32, row: u32, column: u32 }

// Four rows of two columns.
struct Scores { first: vec4<f32>, second: vec4<f32> }

// Four rows of all dimensions that an invocation sums.
alias Sums = array<vec4<f32>, MOST_CHUNKS>;

fn load_columns(side: u32, tile: Tile, depth: u32, x: u32, y: u32) {
    column_tile[y * STRIDE + x] = column_element(side, tile, tile.column + y, depth + x);
    column_tile[(y + 16u) * STRIDE + x] = column_element(side, tile, tile.column + y + 16u, depth + x);
}

// Rows times columns, summed over D.
fn products(side: u32, tile: Tile, x: u32, y: u32) -> Scores {
    var sums = Scores(vec4(0.0), vec4(0.0));
    for (var depth = 0u; depth < HEAD_DIM; depth += DEPTH) {
        workgroupBarrier();
        for (var row = y; row < ROWS; row += 16u) {
            row_tile[row * STRIDE + x] = row_element(side, tile, tile.row + row, depth + x);
        }
        load_columns(side, tile, depth, x, y);
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let at = 4u * y * STRIDE + d;
            let rows = vec4(row_tile[at], row_tile[at + STRIDE], row_tile[at + 2u * STRIDE], row_tile[at + 3u * STRIDE]);
            sums.first += rows * column_tile[x * STRIDE + d];
            sums.second += rows * column_tile[(x + 16u) * STRIDE + d];
        }
    }
    return sums;
}

// Shares this invocation's weights with the others, for `accumulate`.
fn store_weights(mine: Scores, x: u32, y: u32) {
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
        let at = (4u * y + i) * WEIGHT_STRIDE + x;
        weights[at] = mine.first[i];
        weights[at + 16u] = mine.second[i];
    }
}

// sums += weights times columns.
fn accumulate(side: u32, tile: Tile, sums: ptr<function, Sums>, x: u32, y: u32) {
    for (var chunk = 0u; chunk * 16u < HEAD_DIM; chunk++) {
        workgroupBarrier();
        load_columns(side, tile, chunk * 16u, x, y);
        workgroupBarrier();
        var sum = vec4(0.0);
        for (var column = 0u; column < COLUMNS; column++) {
            let at = 4u * y * WEIGHT_STRIDE + column;
            let rows = vec4(
                weights[at], weights[at + WEIGHT_STRIDE], weights[at + 2u * WEIGHT_STRIDE], weights[at + 3u * WEIGHT_STRIDE]
            );
            sum += rows * column_tile[column * STRIDE + x];
        }
        (*sums)[chunk] += sum;
    }
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
        row_tile[(4u * y + i) * STRIDE + x] = mine[i];
    }
    workgroupBarrier();
}

fn shared_rows(x: u32, y: u32) -> vec4<f32> {
    let at = 4u * y * STRIDE + x;
    return vec4(row_tile[at], row_tile[at + STRIDE], row_tile[at + 2u * STRIDE], row_tile[at + 3u * STRIDE]);
}
