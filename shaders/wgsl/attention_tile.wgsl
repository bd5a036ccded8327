// Attention with 64 queries a workgroup.
#import attention_query_tiles

@group(0) @binding(5) var<storage, read_write> output: array<f32>;
@group(0) @binding(6) var<storage, read_write> log_sums: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let x = lane % 16u;
    let y = lane / 16u;
    var tile = query_tile(workgroup);
    let rows = vec4(tile.row + 4u * y) + vec4(0u, 1u, 2u, 3u);
    var sums: Sums;
    // Of the four rows: the largest score so far, and the sum of e^(score - largest) over this invocation's columns.
    var most = vec4(HIDDEN);
    var total = vec4(0.0);
    let reach = reach_of(tile);
    for (tile.column = reach.x; tile.column < reach.y; tile.column += COLUMNS) {
        var scores = products(0u, tile, x, y);
        let shown_first = visible(seeing(tile.batch, tile.column + x), tile.batch, tile.column + x, rows);
        let shown_second = visible(seeing(tile.batch, tile.column + x + 16u), tile.batch, tile.column + x + 16u, rows);
        scores.first = select(vec4(HIDDEN), scores.first * params.scale, shown_first);
        scores.second = select(vec4(HIDDEN), scores.second * params.scale, shown_second);
        let before = most;
        most = largest_of_rows(max(most, max(scores.first, scores.second)), x, y);
        scores.first = select(vec4(0.0), exp(min(scores.first - most, vec4(0.0))), shown_first);
        scores.second = select(vec4(0.0), exp(min(scores.second - most, vec4(0.0))), shown_second);
        let kept = exp(min(before - most, vec4(0.0)));
        total = total * kept + scores.first + scores.second;
        #repeat CHUNK 16 while CHUNK * 16u < HEAD_DIM
            sums[CHUNK] *= kept;
        #end
        store_weights(scores, x, y);
        accumulate(1u, tile, &sums, x, y);
    }
    total = sum_of_rows(total, x, y);
    let none = total == vec4(0.0);
    let scale = select(1.0 / total, vec4(0.0), none);
    let log_sum = select(most + log(total), vec4(HIDDEN), none);
    for (var i = 0u; i < 4u && rows[i] < params.queries; i++) {
        let row = query_row(tile.batch, rows[i], tile.query_head);
        #repeat CHUNK 16 while CHUNK * 16u < HEAD_DIM && CHUNK * 16u + x < HEAD_DIM
            output[row * HEAD_DIM + CHUNK * 16u + x] = sums[CHUNK][i] * scale[i];
        #end
        if x == 0u {
            log_sums[row] = log_sum[i];
        }
    }
}

fn row_element(side: u32, tile: Tile, row: u32, d: u32) -> f32 {
    return query_element(tile, row, d);
}
