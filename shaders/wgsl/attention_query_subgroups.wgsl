// Tiles whose rows are the queries of all heads that share a key head, position by position, and whose columns are keys.
#import attention_subgroups

fn rows() -> u32 {
    return params.queries * group();
}

fn position_of(row: u32) -> u32 {
    return min(row, rows() - 1u) / group();
}

// The index of a row in a tensor [B, T, H, ..] without gaps.
fn index_of(tile: Tile, row: u32) -> u32 {
    let inside = min(row, rows() - 1u);
    return query_row(tile.batch, inside / group(), tile.head * group() + inside % group());
}

// The keys that any of the tile's queries may see: both bounds grow with the position.
fn reach_of(tile: Tile) -> vec2<u32> {
    return vec2(seen_by(tile.batch, position_of(tile.row)).x, seen_by(tile.batch, position_of(tile.row + ROWS - 1u)).y);
}

// Which of this lane's keys a row sees.
fn shown(tile: Tile, row: u32) -> vec4<bool> {
    let position = position_of(row);
    return visible(seen_by(tile.batch, position), tile.batch, position, own_columns(tile));
}

fn start_of_query(tile: Tile, row: u32) -> u32 {
    let inside = min(row, rows() - 1u);
    return row_start(params.query, tile.batch, inside / group(), tile.head * group() + inside % group()) / 4u;
}

fn start_of_column(side: u32, tile: Tile, column: u32) -> u32 {
    let inside = min(column, params.keys - 1u);
    if side == 0u {
        return key_start(params.key, tile.batch, inside, tile.head) / 4u;
    }
    return key_start(params.value, tile.batch, inside, tile.head) / 4u;
}

fn column_vector(side: u32, at: u32) -> vec4<f32> {
    if side == 0u {
        return key[at];
    }
    return value[at];
}
