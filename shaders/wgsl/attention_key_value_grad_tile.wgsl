// The gradients of 64 keys and their values a workgroup: rows are keys, columns the queries of all heads of a group.
#import attention_tiles

@group(0) @binding(5) var<storage, read> grad: array<f32>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let x = lane % 16u;
    let y = lane / 16u;
    var tile = Tile(workgroup.z, 0u, workgroup.y, workgroup.x * ROWS, 0u);
    let rows = vec4(tile.row + 4u * y) + vec4(0u, 1u, 2u, 3u);
    var key_sums: Sums;
    var value_sums: Sums;
    let reach = reach_of(tile);
    for (var member = 0u; member < group(); member++) {
        tile.query_head = tile.key_head * group() + member;
        for (tile.column = reach.x; tile.column < reach.y; tile.column += COLUMNS) {
            let scores = products(0u, tile, x, y);
            let grads = products(1u, tile, x, y);
            let first = weighted(scores.first, grads.first, tile, tile.column + x, rows);
            let second = weighted(scores.second, grads.second, tile, tile.column + x + 16u, rows);
            store_weights(Scores(first.weight, second.weight), x, y);
            accumulate(1u, tile, &value_sums, x, y);
            store_weights(Scores(first.grad, second.grad), x, y);
            accumulate(0u, tile, &key_sums, x, y);
        }
    }
    for (var i = 0u; i < 4u && rows[i] < params.keys; i++) {
        let row = (tile.batch * params.keys + rows[i]) * params.key_heads + tile.key_head;
        #repeat CHUNK 16 while CHUNK * 16u < HEAD_DIM && CHUNK * 16u + x < HEAD_DIM
            let at = row * HEAD_DIM + CHUNK * 16u + x;
            gradients[at] = key_sums[CHUNK][i] * params.scale;
            gradients[values_start() + at] = value_sums[CHUNK][i];
        #end
    }
}

// The queries that may see any of the tile's keys: both bounds grow with the key.
fn reach_of(tile: Tile) -> vec2<u32> {
    let end = min(tile.row + ROWS, length(tile.batch));
    if tile.row >= end {
        return vec2(0u);
    }
    return vec2(seeing(tile.batch, tile.row).x, seeing(tile.batch, end - 1u).y);
}

// Of one query and four keys: the weight p, and the gradient of the score p (dp - dot).
struct Weighted { weight: vec4<f32>, grad: vec4<f32> }

fn weighted(score: vec4<f32>, grads: vec4<f32>, tile: Tile, position: u32, keys: vec4<u32>) -> Weighted {
    if position >= params.queries {
        return Weighted(vec4(0.0), vec4(0.0));
    }
    let row = query_row(tile.batch, position, tile.query_head);
    let shown = visible(seen_by(tile.batch, position), tile.batch, position, keys);
    let weight = select(vec4(0.0), exp(min(score * params.scale - statistics[row].x, vec4(0.0))), shown);
    return Weighted(weight, weight * (grads - statistics[row].y));
}

fn row_element(side: u32, tile: Tile, row: u32, d: u32) -> f32 {
    if row >= params.keys || d >= HEAD_DIM {
        return 0.0;
    }
    if side == 0u {
        return key[row_start(params.key, tile.batch, row, tile.key_head) + d];
    }
    return value[row_start(params.value, tile.batch, row, tile.key_head) + d];
}

fn column_element(side: u32, tile: Tile, column: u32, d: u32) -> f32 {
    if column >= params.queries || d >= HEAD_DIM {
        return 0.0;
    }
    if side == 0u {
        return query[row_start(params.query, tile.batch, column, tile.query_head) + d];
    }
    return grad[query_row(tile.batch, column, tile.query_head) * HEAD_DIM + d];
}
