// Tiles whose rows are queries and whose columns are keys.
#import attention_tiles

fn query_tile(workgroup: vec3<u32>) -> Tile {
    return Tile(workgroup.z, workgroup.y, workgroup.y / group(), first_query(workgroup.x, ROWS), 0u);
}

// The keys that any of the tile's queries may see: both bounds grow with the position.
fn reach_of(tile: Tile) -> vec2<u32> {
    let last = min(tile.row + ROWS, params.queries) - 1u;
    return vec2(seen_by(tile.batch, tile.row).x, seen_by(tile.batch, last).y);
}

fn query_element(tile: Tile, row: u32, d: u32) -> f32 {
    if row < params.queries && d < HEAD_DIM {
        return query[row_start(params.query, tile.batch, row, tile.query_head) + d];
    }
    return 0.0;
}

fn column_element(side: u32, tile: Tile, column: u32, d: u32) -> f32 {
    if column >= params.keys || d >= HEAD_DIM {
        return 0.0;
    }
    if side == 0u {
        return key[key_start(params.key, tile.batch, column, tile.key_head) + d];
    }
    return value[key_start(params.value, tile.batch, column, tile.key_head) + d];
}
