// Tiles whose rows are queries and whose columns are keys.
#import attention_tiles

fn query_tile(workgroup: vec3<u32>) -> Tile {
    return Tile(workgroup.z, workgroup.y, workgroup.y / group(), first_query(workgroup.x, ROWS), 0u, 0u);
}

// The keys that any of the tile's queries may see: both bounds grow with the position.
fn reach_of(tile: Tile) -> vec2<u32> {
    let last = min(tile.row + ROWS, params.queries) - 1u;
    return vec2(seen_by(tile.batch, tile.row).x, seen_by(tile.batch, last).y);
}

fn query_starts(tile: Tile, rows: vec4<u32>) -> vec4<u32> {
    let positions = min(rows, vec4(params.queries - 1u));
    return vec4(row_start(params.query, tile.batch, 0u, tile.query_head)) + positions * params.query.y;
}

fn column_starts(side: u32, tile: Tile, columns: vec4<u32>) -> vec4<u32> {
    let positions = min(columns, vec4(params.keys - 1u));
    let places = vec4(
        place_of(tile.batch, positions.x), place_of(tile.batch, positions.y),
        place_of(tile.batch, positions.z), place_of(tile.batch, positions.w),
    );
    if side == 0u {
        return vec4(row_start(params.key, tile.batch, 0u, tile.key_head)) + places * params.key.y;
    }
    return vec4(row_start(params.value, tile.batch, 0u, tile.key_head)) + places * params.value.y;
}

fn column_element(side: u32, at: u32) -> f32 {
    if side == 0u {
        return key[at];
    }
    return value[at];
}
