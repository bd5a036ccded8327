// The gradients of 64 keys and their values a workgroup, on matrix units: rows are keys, columns the queries of all heads of a
// group.
#import attention_matrices
#import attention_matrix_grad

@group(0) @binding(7) var<storage, read_write> gradients: array<vec4<f32>>;

// Log sums of the columns, then dots.
var<workgroup> of_columns: array<f32, 64>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, mine: Invocation) {
    enter(mine);
    var tile = Tile(workgroup.z, 0u, workgroup.y, workgroup.x * ROWS, 0u);
    var keys: Rows;
    load_rows(0u, tile, &keys);
    var values: Rows;
    load_rows(1u, tile, &values);
    let seers = seeing_of_part(tile.batch, tile.row + my_row());
    var key_sums: RowSums;
    var value_sums: RowSums;
    let reach = reach_of(tile);
    for (var head = 0u; head < group(); head++) {
        tile.query_head = tile.key_head * group() + head;
        for (tile.column = reach.x; tile.column < reach.y; tile.column += COLUMNS) {
            load_columns(tile);
            load_numbers(tile);
            var weights = products(0u, &keys);
            for (var i = 0u; i < FOURS; i++) {
                weights[i] = weight(weights[i], number_four(0u, i), shown(seers, tile, i));
            }
            accumulate(1u, weights, &value_sums);
            var z = products(1u, &values);
            for (var i = 0u; i < FOURS; i++) {
                z[i] = score_grad(weights[i], z[i], number_four(1u, i));
            }
            accumulate(0u, z, &key_sums);
        }
    }
    finish(0u, tile, &key_sums, params.scale);
    finish(1u, tile, &value_sums, 1.0);
}

// The queries of the part that may see any of the tile's keys.
fn reach_of(tile: Tile) -> vec2<u32> {
    let end = min(tile.row + ROWS, length(tile.batch));
    if tile.row >= end {
        return vec2(0u);
    }
    return seeing_any_of(tile.batch, tile.row, end);
}

fn load_numbers(tile: Tile) {
    let lane = invocation.lane;
    if lane < 2u * COLUMNS {
        let row = given_row(tile.batch, min(tile.column + lane % COLUMNS, params.queries - 1u), tile.query_head);
        if lane < COLUMNS {
            of_columns[lane] = statistics[row].x;
        } else {
            of_columns[lane] = statistics[row].y;
        }
    }
}

fn number_four(which: u32, i: u32) -> vec4<f32> {
    let at = which * COLUMNS + my_column() + 4u * i;
    return vec4(of_columns[at], of_columns[at + 1u], of_columns[at + 2u], of_columns[at + 3u]);
}

fn row_four(side: u32, tile: Tile, row: u32, quad: u32) -> vec4<f32> {
    return key_or_value_four(side, tile, row, quad);
}

fn column_four(side: u32, tile: Tile, column: u32, quad: u32) -> vec4<f32> {
    if side == 0u {
        return query_four(tile, column, quad);
    }
    return grad_four(tile, column, quad);
}

fn store_four(side: u32, tile: Tile, row: u32, quad: u32, four: vec4<f32>) {
    if row >= params.keys {
        return;
    }
    let at = ((tile.batch * params.keys + row) * params.key_heads + tile.key_head) * HEAD_DIM / 4u + quad;
    gradients[at + side * values_start() / 4u] = four;
}
