// For adapters that run on the CPU, where a subgroup is a vector: a subgroup has eight rows (queries of all heads that share a key
// head, or keys in the gradient of keys and values) and goes through the other side, its columns, four a lane. Scores vary over
// the lanes by column, sums by dimension; what all lanes need one of them loads, and broadcasts. No shared memory and no
// barriers. D is a multiple of eight, and the inputs lie in whole vectors of four.
//
// The importing kernel says where rows and columns start, in vectors, and what they hold: side 0 is the product of query and
// key, side 1 that of the output's gradient and the value. Rows and columns past their ends repeat the last.
//     fn start_of_row(side: u32, tile: Tile, row: u32) -> u32
//     fn start_of_column(side: u32, tile: Tile, column: u32) -> u32
//     fn row_vector(side: u32, at: u32) -> vec4<f32>
//     fn column_vector(side: u32, at: u32) -> vec4<f32>
#import attention_functions

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;

// D, known when the pipeline is made.
override HEAD_DIM: u32 = 256u;

const ROWS = 8u;
const INVOCATIONS = 32u;
// Blocks of rows that a workgroup has.
const BLOCKS = 4u;
// Vectors of one row's sums that a lane has. Where a subgroup has too few lanes for D, several share a row's dimensions.
const CHUNKS = 4u;

// Of each row, four columns a lane.
alias Scores = array<vec4<f32>, ROWS>;
// Of each row, up to CHUNKS vectors of dimensions a lane.
alias Sums = array<vec4<f32>, 32>;

// What a subgroup is at, `chunk` being the first of the sums' chunks, and this lane of it.
struct Tile { batch: u32, head: u32, row: u32, column: u32, chunk: u32, lane: u32, lanes: u32 }

// How many subgroups share a row's dimensions.
fn parts(lanes: u32) -> u32 {
    return (HEAD_DIM + 4u * CHUNKS * lanes - 1u) / (4u * CHUNKS * lanes);
}

// The workgroup's `item`, a block of rows and a part of their dimensions.
fn tile_of(workgroup: vec3<u32>, item: u32, lane: u32, lanes: u32) -> Tile {
    let block = workgroup.x * BLOCKS + item / parts(lanes);
    return Tile(workgroup.z, workgroup.y, block * ROWS, 0u, item % parts(lanes) * CHUNKS, lane, lanes);
}

// The four columns of this lane.
fn own_columns(tile: Tile) -> vec4<u32> {
    return vec4(tile.column + 4u * tile.lane) + vec4(0u, 1u, 2u, 3u);
}

// Whether D reaches this chunk of a part.
fn has_chunk(tile: Tile, index: u32) -> bool {
    return index * tile.lanes * 4u < HEAD_DIM;
}

// Where this lane's vector of a chunk lies in a row; past the end, the last.
fn vector_of(tile: Tile, index: u32) -> u32 {
    return min((tile.chunk + index) * tile.lanes + tile.lane, HEAD_DIM / 4u - 1u);
}

fn starts_of_columns(side: u32, tile: Tile, first: u32) -> vec4<u32> {
    return vec4(
        start_of_column(side, tile, first),
        start_of_column(side, tile, first + 1u),
        start_of_column(side, tile, first + 2u),
        start_of_column(side, tile, first + 3u),
    );
}

fn column_vectors(side: u32, starts: vec4<u32>, at: u32) -> mat4x4<f32> {
    return mat4x4(
        column_vector(side, starts.x + at),
        column_vector(side, starts.y + at),
        column_vector(side, starts.z + at),
        column_vector(side, starts.w + at),
    );
}

// Rows times columns, summed over D.
fn products(side: u32, tile: Tile) -> Scores {
    var scores: Scores;
    let columns = starts_of_columns(side, tile, tile.column + 4u * tile.lane);
    let first_rows = start_of_row(side, tile, tile.row + tile.lane % 4u);
    let last_rows = start_of_row(side, tile, tile.row + 4u + tile.lane % 4u);
    for (var at = 0u; at < HEAD_DIM / 4u; at += 2u) {
        add_products(side, columns, first_rows, last_rows, at, &scores);
        add_products(side, columns, first_rows, last_rows, at + 1u, &scores);
    }
    return scores;
}

fn add_products(side: u32, columns: vec4<u32>, first_rows: u32, last_rows: u32, at: u32, scores: ptr<function, Scores>) {
    let vectors = transpose(column_vectors(side, columns, at));
    let first = row_vector(side, first_rows + at);
    let last = row_vector(side, last_rows + at);
    (*scores)[0] += vectors * subgroupBroadcast(first, 0u);
    (*scores)[1] += vectors * subgroupBroadcast(first, 1u);
    (*scores)[2] += vectors * subgroupBroadcast(first, 2u);
    (*scores)[3] += vectors * subgroupBroadcast(first, 3u);
    (*scores)[4] += vectors * subgroupBroadcast(last, 0u);
    (*scores)[5] += vectors * subgroupBroadcast(last, 1u);
    (*scores)[6] += vectors * subgroupBroadcast(last, 2u);
    (*scores)[7] += vectors * subgroupBroadcast(last, 3u);
}

// sums += weights times columns, of those before `end`.
fn accumulate(side: u32, tile: Tile, end: u32, weights: Scores, sums: ptr<function, Sums>) {
    for (var owner = 0u; owner < tile.lanes && tile.column + 4u * owner < end; owner++) {
        four_columns(side, tile, owner, weights, sums);
    }
}

// The columns of one lane.
fn four_columns(side: u32, tile: Tile, owner: u32, weights: Scores, sums: ptr<function, Sums>) {
    let starts = starts_of_columns(side, tile, tile.column + 4u * owner);
    let shared_weights = Scores(
        subgroupShuffle(weights[0], owner),
        subgroupShuffle(weights[1], owner),
        subgroupShuffle(weights[2], owner),
        subgroupShuffle(weights[3], owner),
        subgroupShuffle(weights[4], owner),
        subgroupShuffle(weights[5], owner),
        subgroupShuffle(weights[6], owner),
        subgroupShuffle(weights[7], owner),
    );
    add_chunk(column_vectors(side, starts, vector_of(tile, 0u)), shared_weights, sums, 0u);
    if has_chunk(tile, 1u) { add_chunk(column_vectors(side, starts, vector_of(tile, 1u)), shared_weights, sums, 1u); }
    if has_chunk(tile, 2u) { add_chunk(column_vectors(side, starts, vector_of(tile, 2u)), shared_weights, sums, 2u); }
    if has_chunk(tile, 3u) { add_chunk(column_vectors(side, starts, vector_of(tile, 3u)), shared_weights, sums, 3u); }
}

fn add_chunk(columns: mat4x4<f32>, weights: Scores, sums: ptr<function, Sums>, index: u32) {
    (*sums)[index] += columns * weights[0];
    (*sums)[CHUNKS + index] += columns * weights[1];
    (*sums)[2u * CHUNKS + index] += columns * weights[2];
    (*sums)[3u * CHUNKS + index] += columns * weights[3];
    (*sums)[4u * CHUNKS + index] += columns * weights[4];
    (*sums)[5u * CHUNKS + index] += columns * weights[5];
    (*sums)[6u * CHUNKS + index] += columns * weights[6];
    (*sums)[7u * CHUNKS + index] += columns * weights[7];
}
