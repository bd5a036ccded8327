// For devices with fast shared memory: tiles of 64 rows by 64 columns of scores a workgroup of 256. Rows are what a workgroup
// sums for, columns what it goes through. Invocation (x, y) of 16 x 16 has rows 4 y to 4 y + 3 of columns 4 x to 4 x + 3, and of
// every 64 dimensions of the sums those from 4 x on, so that all sums stay in registers: two reads of four from shared memory for
// sixteen multiply-adds.
//
// The importing kernel says where rows and columns start, of four positions, those past the end as the last; and what lies there: side 0 is
// the product of query and key, side 1 that of the output's gradient and the value.
//     fn row_starts(side: u32, tile: Tile, rows: vec4<u32>) -> vec4<u32>
//     fn column_starts(side: u32, tile: Tile, columns: vec4<u32>) -> vec4<u32>
//     fn row_element(side: u32, at: u32) -> f32
//     fn column_element(side: u32, at: u32) -> f32
#import attention_elements

// D, known when the pipeline is made, so that loops over it can be unrolled.
override HEAD_DIM: u32 = 256u;

const ROWS = 64u;
const COLUMNS = 64u;
const DEPTH = 16u; // dimensions that are multiplied at a time
const WIDE = 64u; // dimensions that are summed for at a time
const HALF = 32u; // columns that are summed over at a time

// What lies side by side is read as a vector of four: rows or columns of a dimension, rows of a column, dimensions of a column. Each
// line has one more than its 16, so that lines meet different banks.
const STRIDE = 17u;

// For products, 16 dimensions of the rows and behind them of the columns; for sums, 32 columns.
var<workgroup> slice: array<vec4<f32>, 544>;
var<workgroup> weights: array<vec4<f32>, 1088>;

// The first row and the first column, and the end of all columns.
struct Tile { batch: u32, query_head: u32, key_head: u32, row: u32, column: u32, end: u32 }

// Four rows of each of four columns. As the sums they are indexed by constants alone, as registers can be: each has its lines (#repeat).
alias Scores = array<vec4<f32>, 4>;

// Four rows of all dimensions that an invocation sums.
alias Sums = array<vec4<f32>, 16>;

// Which dimension one of them is of.
fn dimension(at: u32, x: u32) -> u32 {
    return at / 4u * WIDE + 4u * x + at % 4u;
}

fn four_from(first: u32) -> vec4<u32> {
    return vec4(first) + vec4(0u, 1u, 2u, 3u);
}

// Rows times columns, summed over D.
fn products(side: u32, tile: Tile, x: u32, y: u32) -> Scores {
    let rows = row_starts(side, tile, four_from(tile.row + 4u * y));
    let columns = column_starts(side, tile, four_from(tile.column + 4u * y));
    var sums: Scores;
    for (var depth = 0u; depth < params.head_dim; depth += DEPTH) {
        let d = min(depth + x, HEAD_DIM - 1u);
        let inside = depth + x < HEAD_DIM;
        workgroupBarrier();
        slice[x * STRIDE + y] = select(vec4(0.0), row_elements(side, rows + d), inside);
        slice[(DEPTH + x) * STRIDE + y] = select(vec4(0.0), column_elements(side, columns + d), inside);
        workgroupBarrier();
        for (var at = 0u; at < DEPTH; at++) {
            let four_rows = slice[at * STRIDE + y];
            let four_columns = slice[(DEPTH + at) * STRIDE + x];
            sums[0] += four_rows * four_columns.x;
            sums[1] += four_rows * four_columns.y;
            sums[2] += four_rows * four_columns.z;
            sums[3] += four_rows * four_columns.w;
        }
    }
    return sums;
}

fn row_elements(side: u32, at: vec4<u32>) -> vec4<f32> {
    return vec4(row_element(side, at.x), row_element(side, at.y), row_element(side, at.z), row_element(side, at.w));
}

fn column_elements(side: u32, at: vec4<u32>) -> vec4<f32> {
    return vec4(column_element(side, at.x), column_element(side, at.y), column_element(side, at.z), column_element(side, at.w));
}

// Where the weights of one of this invocation's columns lie.
fn weight_at(x: u32, y: u32, column: u32) -> u32 {
    return (4u * x + column) * STRIDE + y;
}

// Shares this invocation's weights with the others, for `accumulate`.
fn store_weights(mine: Scores, x: u32, y: u32) {
    workgroupBarrier();
    #repeat LINE 4 while LINE < 4u
        weights[weight_at(x, y, LINE)] = mine[LINE];
    #end
}

// sums += weights times columns. Its loops have bounds that no compiler knows: those that unroll all of it have too few registers.
fn accumulate(side: u32, tile: Tile, sums: ptr<function, Sums>, x: u32, y: u32) {
    let starts = column_starts(side, tile, vec4(tile.column + y) + vec4(0u, 16u, 32u, 48u));
    let count = min(tile.end - tile.column, COLUMNS);
    #repeat PART 4 while PART * WIDE < HEAD_DIM
        for (var first = 0u; first < count; first += HALF) {
            stage_columns(side, select(starts.xy, starts.zw, first == HALF), PART * WIDE + 4u * x, x, y);
            for (var column = 0u; column < min(count - first, HALF); column += 4u) {
                let weight = (first + column) * STRIDE + y;
                let four = column * STRIDE + x;
                add_column(sums, PART * 4u, weight, four);
                add_column(sums, PART * 4u, weight + STRIDE, four + STRIDE);
                add_column(sums, PART * 4u, weight + 2u * STRIDE, four + 2u * STRIDE);
                add_column(sums, PART * 4u, weight + 3u * STRIDE, four + 3u * STRIDE);
            }
        }
    #end
}

// Called with a constant, so that the sums stay in registers.
fn add_column(sums: ptr<function, Sums>, part: u32, weight: u32, four: u32) {
    let rows = weights[weight];
    let dimensions = slice[four];
    (*sums)[part] += rows * dimensions.x;
    (*sums)[part + 1u] += rows * dimensions.y;
    (*sums)[part + 2u] += rows * dimensions.z;
    (*sums)[part + 3u] += rows * dimensions.w;
}

// Puts four dimensions of two columns into shared memory.
fn stage_columns(side: u32, starts: vec2<u32>, depth: u32, x: u32, y: u32) {
    let all = four_from(depth);
    let d = min(all, vec4(HEAD_DIM - 1u));
    let inside = all < vec4(HEAD_DIM);
    workgroupBarrier();
    slice[y * STRIDE + x] = select(vec4(0.0), column_elements(side, starts.x + d), inside);
    slice[(16u + y) * STRIDE + x] = select(vec4(0.0), column_elements(side, starts.y + d), inside);
    workgroupBarrier();
}

// Over the sixteen invocations that share four rows, in a fixed order.
fn sum_of_rows(mine: vec4<f32>, x: u32, y: u32) -> vec4<f32> {
    share_rows(mine, x, y);
    var sum = vec4(0.0);
    for (var other = 0u; other < 16u; other++) {
        sum += slice[other * STRIDE + y];
    }
    return sum;
}

fn largest_of_rows(mine: vec4<f32>, x: u32, y: u32) -> vec4<f32> {
    share_rows(mine, x, y);
    var most = mine;
    for (var other = 0u; other < 16u; other++) {
        most = max(most, slice[other * STRIDE + y]);
    }
    return most;
}

fn share_rows(mine: vec4<f32>, x: u32, y: u32) {
    workgroupBarrier();
    slice[x * STRIDE + y] = mine;
    workgroupBarrier();
}
