// Tiles on matrices whose rows are queries and whose columns are keys.
#import attention_matrices

fn query_tile(workgroup: vec3<u32>) -> Tile {
    return Tile(workgroup.z, workgroup.y, workgroup.y / group(), first_query(workgroup.x, ROWS), 0u);
}

// The keys that any of the tile's queries may see: both bounds grow with the position.
fn reach_of(tile: Tile) -> vec2<u32> {
    let last = min(tile.row + ROWS, params.queries) - 1u;
    return vec2(seen_by(tile.batch, tile.row).x, seen_by(tile.batch, last).y);
}

// The index of this invocation's row in a tensor [B, T, H, ..]; past the end, that of the last.
fn my_query_row(tile: Tile) -> u32 {
    return query_row(tile.batch, min(tile.row + my_row(), params.queries - 1u), tile.query_head);
}

fn column_four(side: u32, tile: Tile, column: u32, quad: u32) -> vec4<f32> {
    return key_or_value_four(side, tile, column, quad);
}
