// The gradient of 64 queries a workgroup.
#import attention_query_tiles

@group(0) @binding(5) var<storage, read> grad: array<f32>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> query_grad: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let x = lane % 16u;
    let y = lane / 16u;
    var tile = query_tile(workgroup);
    let rows = four_from(tile.row + 4u * y);
    var dot = vec4(0.0);
    var log_sum = vec4(0.0);
    for (var i = 0u; i < 4u && rows[i] < params.queries; i++) {
        let row = query_row(tile.batch, rows[i], tile.query_head);
        log_sum[i] = statistics[row].x;
        dot[i] = statistics[row].y;
    }
    var sums: Sums;
    let reach = reach_of(tile);
    tile.end = reach.y;
    for (tile.column = reach.x; tile.column < tile.end; tile.column += COLUMNS) {
        let scores = products(0u, tile, x, y);
        var z = products(1u, tile, x, y);
        #repeat LINE 4 while LINE < 4u
            z[LINE] = (z[LINE] - dot) * weight(scores[LINE], log_sum, tile.batch, tile.column + 4u * x + LINE, rows);
        #end
        store_weights(z, x, y);
        accumulate(0u, tile, &sums, x, y);
    }
    for (var i = 0u; i < 4u && rows[i] < params.queries; i++) {
        let row = query_row(tile.batch, rows[i], tile.query_head);
        #repeat AT 16 while AT / 4u * WIDE < HEAD_DIM && dimension(AT, x) < HEAD_DIM
            query_grad[row * HEAD_DIM + dimension(AT, x)] = sums[AT][i] * params.scale;
        #end
    }
}

fn weight(score: vec4<f32>, log_sum: vec4<f32>, batch: u32, column: u32, rows: vec4<u32>) -> vec4<f32> {
    let shown = visible(seeing(batch, column), batch, column, rows);
    return select(vec4(0.0), exp(min(score * params.scale - log_sum, vec4(0.0))), shown);
}

fn row_starts(side: u32, tile: Tile, rows: vec4<u32>) -> vec4<u32> {
    if side == 0u {
        return query_starts(tile, rows);
    }
    let positions = min(rows, vec4(params.queries - 1u));
    return vec4(query_row(tile.batch, 0u, tile.query_head) * HEAD_DIM) + positions * (params.heads * HEAD_DIM);
}

fn row_element(side: u32, at: u32) -> f32 {
    if side == 0u {
        return query[at];
    }
    return grad[at];
}
