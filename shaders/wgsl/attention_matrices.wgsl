// For devices with matrix units: tiles of 64 rows by 32 columns of scores a workgroup, LINES rows a subgroup. Rows are what a
// workgroup sums for, columns what it goes through. Operands are f16; rows and sums stay in matrices, columns are staged in shared
// memory. Only there have a matrix's elements known places, so scores pass through it too: SHARERS invocations of a subgroup share a
// row of it, FOURS vectors of four columns each. D is a multiple of 16 of at most 128, and the inputs lie in whole vectors of four.
//
// The importing kernel says what rows and columns hold, in vectors of four dimensions, 0 past their ends: side 0 is the product
// of query and key, side 1 that of the output's gradient and the value. And it writes rows of results, one for each side.
//     fn row_four(side: u32, tile: Tile, row: u32, quad: u32) -> vec4<f32>
//     fn column_four(side: u32, tile: Tile, column: u32, quad: u32) -> vec4<f32>
//     fn store_four(side: u32, tile: Tile, row: u32, quad: u32, four: vec4<f32>)
#import attention_functions

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;

// D, known when the pipeline is made, so that loops over it can be unrolled.
override HEAD_DIM: u32 = 128u;

const ROWS = 64u;
const COLUMNS = 32u;
const SIDE = 16u;
const MOST_CHUNKS = 8u; // of SIDE dimensions, in the largest D
const QUADS = 8u; // of a row of scores

// Vectors of a row of operands, of weights and of scores, each with some more than it holds, so that rows meet different banks.
override STRIDE = HEAD_DIM / 4u + 2u;
const WEIGHT_STRIDE = QUADS + 2u;
const SCORE_STRIDE = QUADS + 1u;

// Columns of both sides (or rows of one, at first), then the weights.
override OPERANDS = ROWS * STRIDE + ROWS * WEIGHT_STRIDE;
const STAGED = ROWS * SCORE_STRIDE;

override WORKGROUP = ROWS / LINES * SUBGROUP;
override SHARERS = SUBGROUP / LINES;
override FOURS = QUADS / SHARERS;

// A number of each invocation, for those that share its row.
var<workgroup> of_sharers: array<f32, WORKGROUP>;

struct Tile { batch: u32, query_head: u32, key_head: u32, row: u32, column: u32 }

// The subgroup's rows of all dimensions: an operand, and sums. They are indexed by constants alone, as registers can be: each chunk has its
// lines (#repeat).
alias Rows = array<Left, MOST_CHUNKS>;
alias RowSums = array<Sums, MOST_CHUNKS>;

// This invocation's columns of a row: FOURS vectors, of as many as one alone would have.
alias Scores = array<vec4<f32>, QUADS>;

// Of the tile's rows, the one that this invocation has columns of.
fn my_row() -> u32 {
    return my_lines() + invocation.member / SHARERS;
}

// The first of the subgroup's rows.
fn my_lines() -> u32 {
    return invocation.subgroup * LINES;
}

// The first of its columns.
fn my_column() -> u32 {
    return invocation.member % SHARERS * 4u * FOURS;
}

fn load_rows(side: u32, tile: Tile, rows: ptr<function, Rows>) {
    workgroupBarrier();
    for (var i = invocation.lane; i < ROWS * HEAD_DIM / 4u; i += WORKGROUP) {
        let row = i / (HEAD_DIM / 4u);
        let quad = i % (HEAD_DIM / 4u);
        put(row * STRIDE + quad, vec4<f16>(row_four(side, tile, tile.row + row, quad)));
    }
    workgroupBarrier();
    #repeat CHUNK 8 while CHUNK * SIDE < HEAD_DIM
        (*rows)[CHUNK] = left(my_lines() * STRIDE + CHUNK * SIDE / 4u, STRIDE);
    #end
}

// Puts the tile's columns of both sides into shared memory.
fn load_columns(tile: Tile) {
    workgroupBarrier();
    for (var i = invocation.lane; i < COLUMNS * HEAD_DIM / 4u; i += WORKGROUP) {
        let column = i / (HEAD_DIM / 4u);
        let quad = i % (HEAD_DIM / 4u);
        put(column * STRIDE + quad, vec4<f16>(column_four(0u, tile, tile.column + column, quad)));
        put((COLUMNS + column) * STRIDE + quad, vec4<f16>(column_four(1u, tile, tile.column + column, quad)));
    }
    workgroupBarrier();
}

// Rows times the columns of a side, summed over D: this invocation's part. Between two of these there is a barrier.
fn products(side: u32, rows: ptr<function, Rows>) -> Scores {
    var low: Sums;
    var high: Sums;
    #repeat CHUNK 8 while CHUNK * SIDE < HEAD_DIM
        let columns = side * COLUMNS * STRIDE + CHUNK * SIDE / 4u;
        low = multiply_add((*rows)[CHUNK], right_turned(columns, STRIDE), low);
        high = multiply_add((*rows)[CHUNK], right_turned(columns + SIDE * STRIDE, STRIDE), high);
    #end
    stage_pair(low, high);
    var scores: Scores;
    for (var i = 0u; i < FOURS; i++) {
        scores[i] = score_four(i);
    }
    return scores;
}

// Lays two matrices side by side where all of the subgroup can read them.
fn stage_pair(low: Sums, high: Sums) {
    let at = my_lines() * SCORE_STRIDE;
    stage(low, at, SCORE_STRIDE);
    stage(high, at + SIDE / 4u, SCORE_STRIDE);
    workgroupBarrier();
}

fn score_at(i: u32) -> u32 {
    return 4u * (my_row() * SCORE_STRIDE + my_column() / 4u + i);
}

fn score_four(i: u32) -> vec4<f32> {
    let at = score_at(i);
    return vec4(staged[at], staged[at + 1u], staged[at + 2u], staged[at + 3u]);
}

// sums += weights times the columns of a side. Between two of these there is a barrier.
fn accumulate(side: u32, weights: Scores, sums: ptr<function, RowSums>) {
    let mine = weights;
    for (var i = 0u; i < FOURS; i++) {
        put(ROWS * STRIDE + my_row() * WEIGHT_STRIDE + my_column() / 4u + i, vec4<f16>(mine[i]));
    }
    workgroupBarrier();
    let at = ROWS * STRIDE + my_lines() * WEIGHT_STRIDE;
    let low = left(at, WEIGHT_STRIDE);
    let high = left(at + SIDE / 4u, WEIGHT_STRIDE);
    #repeat CHUNK 8 while CHUNK * SIDE < HEAD_DIM
        let columns = side * COLUMNS * STRIDE + CHUNK * SIDE / 4u;
        let half = multiply_add(low, right(columns, STRIDE), (*sums)[CHUNK]);
        (*sums)[CHUNK] = multiply_add(high, right(columns + SIDE * STRIDE, STRIDE), half);
    #end
}

// Multiplies this invocation's row of the sums.
fn scale_rows(sums: ptr<function, RowSums>, factor: f32) {
    let start = my_lines() * SCORE_STRIDE;
    #repeat PAIR 4 while PAIR * 2u * SIDE < HEAD_DIM
        workgroupBarrier();
        stage_pair((*sums)[PAIR * 2u], (*sums)[PAIR * 2u + 1u]);
        scale_staged(factor);
        workgroupBarrier();
        (*sums)[PAIR * 2u] = unstage(start, SCORE_STRIDE);
        (*sums)[PAIR * 2u + 1u] = unstage(start + SIDE / 4u, SCORE_STRIDE);
    #end
}

fn scale_staged(factor: f32) {
    for (var i = 0u; i < FOURS; i++) {
        let at = score_at(i);
        staged[at] *= factor;
        staged[at + 1u] *= factor;
        staged[at + 2u] *= factor;
        staged[at + 3u] *= factor;
    }
}

// Writes this invocation's row of the sums, times a factor.
fn finish(side: u32, tile: Tile, sums: ptr<function, RowSums>, factor: f32) {
    #repeat PAIR 4 while PAIR * 2u * SIDE < HEAD_DIM
        workgroupBarrier();
        stage_pair((*sums)[PAIR * 2u], (*sums)[PAIR * 2u + 1u]);
        store_staged(side, tile, PAIR * 2u * SIDE, factor);
    #end
}

// Writes what is staged, from a dimension on.
fn store_staged(side: u32, tile: Tile, first: u32, factor: f32) {
    for (var i = 0u; i < FOURS; i++) {
        let d = first + my_column() + 4u * i;
        if d < HEAD_DIM {
            store_four(side, tile, tile.row + my_row(), d / 4u, factor * score_four(i));
        }
    }
}

// Gives a number to those that share this invocation's row, who may read it behind a barrier.
fn share(mine: f32) {
    of_sharers[my_place()] = mine;
}

fn my_place() -> u32 {
    return invocation.subgroup * SUBGROUP + invocation.member;
}

// The largest that was shared of the row.
fn largest_of_row() -> f32 {
    let first = my_place() / SHARERS * SHARERS;
    var largest = of_sharers[first];
    for (var i = 1u; i < SHARERS; i++) {
        largest = max(largest, of_sharers[first + i]);
    }
    return largest;
}

// Over the whole row, in a fixed order.
fn sum_of_row(mine: f32) -> f32 {
    workgroupBarrier();
    share(mine);
    workgroupBarrier();
    let first = my_place() / SHARERS * SHARERS;
    var sum = of_sharers[first];
    for (var i = 1u; i < SHARERS; i++) {
        sum += of_sharers[first + i];
    }
    return sum;
}

// Which of four of this invocation's columns its row sees, given the range that it sees apart from segments.
fn shown(range: vec2<u32>, tile: Tile, i: u32) -> vec4<bool> {
    let columns = vec4(tile.column + my_column() + 4u * i) + vec4(0u, 1u, 2u, 3u);
    return visible(range, tile.batch, tile.row + my_row(), columns);
}

fn query_four(tile: Tile, position: u32, quad: u32) -> vec4<f32> {
    if position < params.queries {
        return query[row_start(params.query, tile.batch, position, tile.query_head) / 4u + quad];
    }
    return vec4(0.0);
}

fn key_or_value_four(side: u32, tile: Tile, position: u32, quad: u32) -> vec4<f32> {
    if position >= params.keys {
        return vec4(0.0);
    }
    if side == 0u {
        return key[key_start(params.key, tile.batch, position, tile.key_head) / 4u + quad];
    }
    return value[key_start(params.value, tile.batch, position, tile.key_head) / 4u + quad];
}
