// The gradients of eight keys and their values a subgroup: rows are keys, columns the queries of all heads of a group, position
// by position.
#import attention_subgroups

@group(0) @binding(5) var<storage, read> grad: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> gradients: array<vec4<f32>>;

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    for (var item = subgroup; item < BLOCKS * parts(lanes); item += subgroups) {
        let tile = tile_of(workgroup, item, lane, lanes);
        if tile.row < params.keys {
            differentiate(tile);
        }
    }
}

fn differentiate(start: Tile) {
    var tile = start;
    var key_sums: Sums;
    var value_sums: Sums;
    let reach = reach_of(tile);
    for (tile.column = reach.x; tile.column < reach.y; tile.column += 4u * tile.lanes) {
        let scores = products(0u, tile);
        let grads = products(1u, tile);
        let columns = own_columns(tile);
        let rows = vec4(index_of(tile, columns.x), index_of(tile, columns.y), index_of(tile, columns.z), index_of(tile, columns.w));
        let log_sum = vec4(statistics[rows.x].x, statistics[rows.y].x, statistics[rows.z].x, statistics[rows.w].x);
        let dot = vec4(statistics[rows.x].y, statistics[rows.y].y, statistics[rows.z].y, statistics[rows.w].y);
        let weights = Scores(
            weight(tile, 0u, scores[0], log_sum),
            weight(tile, 1u, scores[1], log_sum),
            weight(tile, 2u, scores[2], log_sum),
            weight(tile, 3u, scores[3], log_sum),
            weight(tile, 4u, scores[4], log_sum),
            weight(tile, 5u, scores[5], log_sum),
            weight(tile, 6u, scores[6], log_sum),
            weight(tile, 7u, scores[7], log_sum),
        );
        accumulate(1u, tile, reach.y, weights, &value_sums);
        let z = Scores(
            weights[0] * (grads[0] - dot),
            weights[1] * (grads[1] - dot),
            weights[2] * (grads[2] - dot),
            weights[3] * (grads[3] - dot),
            weights[4] * (grads[4] - dot),
            weights[5] * (grads[5] - dot),
            weights[6] * (grads[6] - dot),
            weights[7] * (grads[7] - dot),
        );
        accumulate(0u, tile, reach.y, z, &key_sums);
    }
    write(&key_sums, &value_sums, tile, 0u);
    write(&key_sums, &value_sums, tile, 1u);
    write(&key_sums, &value_sums, tile, 2u);
    write(&key_sums, &value_sums, tile, 3u);
    write(&key_sums, &value_sums, tile, 4u);
    write(&key_sums, &value_sums, tile, 5u);
    write(&key_sums, &value_sums, tile, 6u);
    write(&key_sums, &value_sums, tile, 7u);
}

// The columns of queries of the part that may see any of the tile's keys.
fn reach_of(tile: Tile) -> vec2<u32> {
    let end = min(tile.row + ROWS, length(tile.batch));
    if tile.row >= end {
        return vec2(0u);
    }
    return seeing_any_of(tile.batch, tile.row, end) * group();
}

fn weight(tile: Tile, r: u32, products: vec4<f32>, log_sum: vec4<f32>) -> vec4<f32> {
    let at = min(tile.row + r, params.keys - 1u);
    let shown = visible(seeing_of_part(tile.batch, at), tile.batch, at, own_columns(tile) / group());
    return select(vec4(0.0), exp(min(products * params.scale - log_sum, vec4(0.0))), shown);
}

fn write(key_sums: ptr<function, Sums>, value_sums: ptr<function, Sums>, tile: Tile, r: u32) {
    if tile.row + r >= params.keys {
        return;
    }
    let index = (tile.batch * params.keys + tile.row + r) * params.key_heads + tile.head;
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
        let at = (tile.chunk + chunk) * tile.lanes + tile.lane;
        if at < HEAD_DIM / 4u {
            gradients[index * (HEAD_DIM / 4u) + at] = (*key_sums)[r * CHUNKS + chunk] * params.scale;
            gradients[values_start() / 4u + index * (HEAD_DIM / 4u) + at] = (*value_sums)[r * CHUNKS + chunk];
        }
    }
}

// The index of a column's query in an input [B, T, H, ..] without gaps.
fn index_of(tile: Tile, column: u32) -> u32 {
    let inside = min(column, params.queries * group() - 1u);
    return given_row(tile.batch, inside / group(), tile.head * group() + inside % group());
}

fn start_of_row(side: u32, tile: Tile, row: u32) -> u32 {
    let inside = min(row, params.keys - 1u);
    if side == 0u {
        return row_start(params.key, tile.batch, inside, tile.head) / 4u;
    }
    return row_start(params.value, tile.batch, inside, tile.head) / 4u;
}

fn row_vector(side: u32, at: u32) -> vec4<f32> {
    if side == 0u {
        return key[at];
    }
    return value[at];
}

fn start_of_column(side: u32, tile: Tile, column: u32) -> u32 {
    if side == 0u {
        let inside = min(column, params.queries * group() - 1u);
        return row_start(params.query, tile.batch, inside / group(), tile.head * group() + inside % group()) / 4u;
    }
    return index_of(tile, column) * (HEAD_DIM / 4u);
}

fn column_vector(side: u32, at: u32) -> vec4<f32> {
    if side == 0u {
        return query[at];
    }
    return grad[at];
}
