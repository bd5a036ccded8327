// Attention with 64 queries a workgroup, on matrix units.
#import attention_query_matrices

@group(0) @binding(5) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> log_sums: array<f32>;

// Weights are e^(score - most), where `most` follows the largest score of a row only once that has grown by more than this: up to
// 2^8, weights fit f16 and its sums f32, and moving what was summed so far goes through shared memory.
const GROWTH = 5.5;

// Whether some row's largest score has.
var<workgroup> grown: atomic<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, mine: Invocation) {
    enter(mine);
    var tile = query_tile(workgroup);
    var queries: Rows;
    load_rows(0u, tile, &queries);
    let seen = seen_by(tile.batch, tile.row + my_row());
    var sums: RowSums;
    var most = HIDDEN;
    // Of e^(score - most), over this invocation's columns.
    var total = 0.0;
    let reach = reach_of(tile);
    for (tile.column = reach.x; tile.column < reach.y; tile.column += COLUMNS) {
        if invocation.lane == 0u {
            atomicStore(&grown, 0u);
        }
        load_columns(tile);
        var scores = products(0u, &queries);
        var largest = HIDDEN;
        for (var i = 0u; i < FOURS; i++) {
            scores[i] = select(vec4(HIDDEN), scores[i] * params.scale, shown(seen, tile, i));
            largest = max(largest, max(max(scores[i].x, scores[i].y), max(scores[i].z, scores[i].w)));
        }
        share(largest);
        if largest > most + GROWTH {
            atomicStore(&grown, 1u);
        }
        // Uniform, as products of matrices must be: all rows follow where one has to.
        if workgroupUniformLoad(&grown) == 1u {
            let before = most;
            most = max(most, largest_of_row());
            let kept = exp(before - most);
            total *= kept;
            scale_rows(&sums, kept);
        }
        for (var i = 0u; i < FOURS; i++) {
            let weights = exp(min(scores[i] - most, vec4(GROWTH)));
            scores[i] = select(vec4(0.0), weights, scores[i] > vec4(HIDDEN));
            total += dot(scores[i], vec4(1.0));
        }
        accumulate(1u, scores, &sums);
    }
    total = sum_of_row(total);
    finish(1u, tile, &sums, select(1.0 / total, 0.0, total == 0.0));
    if invocation.member % SHARERS == 0u && tile.row + my_row() < params.queries {
        log_sums[my_query_row(tile)] = select(most + log(total), HIDDEN, total == 0.0);
    }
}

fn row_four(side: u32, tile: Tile, row: u32, quad: u32) -> vec4<f32> {
    return query_four(tile, row, quad);
}

fn store_four(side: u32, tile: Tile, row: u32, quad: u32, four: vec4<f32>) {
    if row < params.queries {
        output[query_row(tile.batch, row, tile.query_head) * HEAD_DIM / 4u + quad] = four;
    }
}
