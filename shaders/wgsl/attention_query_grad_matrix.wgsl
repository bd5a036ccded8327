// The gradient of 64 queries a workgroup, on matrix units.
#import attention_query_matrices
#import attention_matrix_grad

@group(0) @binding(7) var<storage, read_write> query_grad: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, mine: Invocation) {
    enter(mine);
    var tile = query_tile(workgroup);
    var queries: Rows;
    load_rows(0u, tile, &queries);
    var grads: Rows;
    load_rows(1u, tile, &grads);
    let seen = seen_by(tile.batch, tile.row + my_row());
    let known = statistics[my_query_row(tile)];
    var sums: RowSums;
    let reach = reach_of(tile);
    for (tile.column = reach.x; tile.column < reach.y; tile.column += COLUMNS) {
        load_columns(tile);
        let scores = products(0u, &queries);
        workgroupBarrier();
        var z = products(1u, &grads);
        for (var i = 0u; i < FOURS; i++) {
            z[i] = score_grad(weight(scores[i], vec4(known.x), shown(seen, tile, i)), z[i], vec4(known.y));
        }
        accumulate(0u, z, &sums);
    }
    finish(0u, tile, &sums, params.scale);
}

fn row_four(side: u32, tile: Tile, row: u32, quad: u32) -> vec4<f32> {
    if side == 0u {
        return query_four(tile, row, quad);
    }
    return grad_four(tile, row, quad);
}

fn store_four(side: u32, tile: Tile, row: u32, quad: u32, four: vec4<f32>) {
    if row < params.queries {
        query_grad[query_row(tile.batch, row, tile.query_head) * HEAD_DIM / 4u + quad] = four;
    }
}
