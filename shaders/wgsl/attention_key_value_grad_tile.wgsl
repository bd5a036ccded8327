// The gradients of 64 keys and their values a workgroup: rows are keys, columns the queries of all heads of a group.
#import attention_tiles

@group(0) @binding(5) var<storage, read> grad: array<f32>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let x = lane % 16u;
    let y = lane / 16u;
    var tile = Tile(workgroup.z, 0u, workgroup.y, workgroup.x * ROWS, 0u, 0u);
    let rows = four_from(tile.row + 4u * y);
    var key_sums: Sums;
    var value_sums: Sums;
    let reach = reach_of(tile);
    tile.end = reach.y;
    for (var member = 0u; member < group(); member++) {
        tile.query_head = tile.key_head * group() + member;
        for (tile.column = reach.x; tile.column < tile.end; tile.column += COLUMNS) {
            var of_tile = products(0u, tile, x, y);
            #repeat LINE 4 while LINE < 4u
                of_tile[LINE] = weight(of_tile[LINE], tile, tile.column + 4u * x + LINE, rows);
            #end
            store_weights(of_tile, x, y);
            accumulate(1u, tile, &value_sums, x, y);
            of_tile = products(1u, tile, x, y);
            // Registers are few here: its own weights an invocation reads again.
            #repeat LINE 4 while LINE < 4u
                of_tile[LINE] = weights[weight_at(x, y, LINE)] * (of_tile[LINE] - statistics_of(tile, tile.column + 4u * x + LINE).y);
            #end
            store_weights(of_tile, x, y);
            accumulate(0u, tile, &key_sums, x, y);
        }
    }
    for (var i = 0u; i < 4u && rows[i] < params.keys; i++) {
        let row = (tile.batch * params.keys + rows[i]) * params.key_heads + tile.key_head;
        #repeat AT 16 while AT / 4u * WIDE < HEAD_DIM && dimension(AT, x) < HEAD_DIM
            let at = row * HEAD_DIM + dimension(AT, x);
            gradients[at] = key_sums[AT][i] * params.scale;
            gradients[values_start() + at] = value_sums[AT][i];
        #end
    }
}

// The queries of the part that may see any of the tile's keys.
fn reach_of(tile: Tile) -> vec2<u32> {
    let end = min(tile.row + ROWS, length(tile.batch));
    if tile.row >= end {
        return vec2(0u);
    }
    return seeing_any_of(tile.batch, tile.row, end);
}

// The weights of one query for four keys, if it is one of the columns.
fn weight(score: vec4<f32>, tile: Tile, position: u32, keys: vec4<u32>) -> vec4<f32> {
    let shown = visible(all_seen_by(tile.batch, position), tile.batch, position, keys) & vec4(position < tile.end);
    return select(vec4(0.0), exp(min(score * params.scale - statistics_of(tile, position).x, vec4(0.0))), shown);
}

// The log sum of a query, or of the last where there are no more, and its dot.
fn statistics_of(tile: Tile, position: u32) -> vec2<f32> {
    return statistics[given_row(tile.batch, min(position, params.queries - 1u), tile.query_head)];
}

fn row_starts(side: u32, tile: Tile, rows: vec4<u32>) -> vec4<u32> {
    let positions = min(rows, vec4(params.keys - 1u));
    if side == 0u {
        return vec4(row_start(params.key, tile.batch, 0u, tile.key_head)) + positions * params.key.y;
    }
    return vec4(row_start(params.value, tile.batch, 0u, tile.key_head)) + positions * params.value.y;
}

fn row_element(side: u32, at: u32) -> f32 {
    if side == 0u {
        return key[at];
    }
    return value[at];
}

fn column_starts(side: u32, tile: Tile, columns: vec4<u32>) -> vec4<u32> {
    let positions = min(columns, vec4(params.queries - 1u));
    if side == 0u {
        return vec4(row_start(params.query, tile.batch, 0u, tile.query_head)) + positions * params.query.y;
    }
    return vec4(given_row(tile.batch, 0u, tile.query_head) * HEAD_DIM) + positions * (params.heads * HEAD_DIM);
}

fn column_element(side: u32, at: u32) -> f32 {
    if side == 0u {
        return query[at];
    }
    return grad[at];
}
