// Attention with 64 queries a workgroup.
#import attention_query_tiles

@group(0) @binding(5) var<storage, read_write> output: array<f32>;
@group(0) @binding(6) var<storage, read_write> log_sums: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let x = lane % 16u;
    let y = lane / 16u;
    var tile = query_tile(workgroup);
    let rows = four_from(tile.row + 4u * y);
    var sums: Sums;
    // Of the four rows: the largest score so far, and the sum of e^(score - largest) over this invocation's columns.
    var most = vec4(HIDDEN);
    var total = vec4(0.0);
    let reach = reach_of(tile);
    tile.end = reach.y;
    for (tile.column = reach.x; tile.column < tile.end; tile.column += COLUMNS) {
        var scores = products(0u, tile, x, y);
        var largest = most;
        #repeat LINE 4 while LINE < 4u
            scores[LINE] = select(vec4(HIDDEN), scores[LINE] * params.scale, shown_to(tile, tile.column + 4u * x + LINE, rows));
            largest = max(largest, scores[LINE]);
        #end
        let before = most;
        most = largest_of_rows(largest, x, y);
        let kept = exp(min(before - most, vec4(0.0)));
        total *= kept;
        #repeat LINE 4 while LINE < 4u
            // What is hidden weighs nothing, where all are hidden too.
            scores[LINE] = select(exp(min(scores[LINE] - most, vec4(0.0))), vec4(0.0), scores[LINE] == vec4(HIDDEN));
            total += scores[LINE];
        #end
        #repeat AT 16 while AT / 4u * WIDE < HEAD_DIM
            sums[AT] *= kept;
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
        #repeat AT 16 while AT / 4u * WIDE < HEAD_DIM && dimension(AT, x) < HEAD_DIM
            output[row * HEAD_DIM + dimension(AT, x)] = sums[AT][i] * scale[i];
        #end
        if x == 0u {
            log_sums[row] = log_sum[i];
        }
    }
}

// Which of four queries may see a key.
fn shown_to(tile: Tile, column: u32, rows: vec4<u32>) -> vec4<bool> {
    return visible(seeing(tile.batch, column), tile.batch, column, rows);
}

fn row_starts(side: u32, tile: Tile, rows: vec4<u32>) -> vec4<u32> {
    return query_starts(tile, rows);
}

fn row_element(side: u32, at: u32) -> f32 {
    return query[at];
}
