// The gradient of eight queries a subgroup.
#import attention_query_subgroups

@group(0) @binding(5) var<storage, read> grad: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> query_grad: array<vec4<f32>>;

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    for (var item = subgroup; item < BLOCKS * parts(lanes); item += subgroups) {
        let tile = tile_of(workgroup, item, lane, lanes);
        if tile.row < rows() {
            differentiate(tile);
        }
    }
}

fn differentiate(start: Tile) {
    var tile = start;
    let dots = array<f32, ROWS>(
        dot_of(tile, 0u),
        dot_of(tile, 1u),
        dot_of(tile, 2u),
        dot_of(tile, 3u),
        dot_of(tile, 4u),
        dot_of(tile, 5u),
        dot_of(tile, 6u),
        dot_of(tile, 7u),
    );
    var sums: Sums;
    let reach = reach_of(tile);
    for (tile.column = reach.x; tile.column < reach.y; tile.column += 4u * tile.lanes) {
        let scores = products(0u, tile);
        let grads = products(1u, tile);
        let z = Scores(
            (grads[0] - dots[0]) * weight(tile, 0u, scores[0]),
            (grads[1] - dots[1]) * weight(tile, 1u, scores[1]),
            (grads[2] - dots[2]) * weight(tile, 2u, scores[2]),
            (grads[3] - dots[3]) * weight(tile, 3u, scores[3]),
            (grads[4] - dots[4]) * weight(tile, 4u, scores[4]),
            (grads[5] - dots[5]) * weight(tile, 5u, scores[5]),
            (grads[6] - dots[6]) * weight(tile, 6u, scores[6]),
            (grads[7] - dots[7]) * weight(tile, 7u, scores[7]),
        );
        accumulate(0u, tile, reach.y, z, &sums);
    }
    write(&sums, tile, 0u);
    write(&sums, tile, 1u);
    write(&sums, tile, 2u);
    write(&sums, tile, 3u);
    write(&sums, tile, 4u);
    write(&sums, tile, 5u);
    write(&sums, tile, 6u);
    write(&sums, tile, 7u);
}

// The product of a row's output and its gradient.
fn dot_of(tile: Tile, r: u32) -> f32 {
    return statistics[index_of(tile, tile.row + r)].y;
}

fn weight(tile: Tile, r: u32, products: vec4<f32>) -> vec4<f32> {
    let log_sum = statistics[index_of(tile, tile.row + r)].x;
    return select(vec4(0.0), exp(min(products * params.scale - log_sum, vec4(0.0))), shown(tile, tile.row + r));
}

fn write(sums: ptr<function, Sums>, tile: Tile, r: u32) {
    if tile.row + r >= rows() {
        return;
    }
    let index = index_of(tile, tile.row + r);
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
        let at = (tile.chunk + chunk) * tile.lanes + tile.lane;
        if at < HEAD_DIM / 4u {
            query_grad[index * (HEAD_DIM / 4u) + at] = (*sums)[r * CHUNKS + chunk] * params.scale;
        }
    }
}

fn start_of_row(side: u32, tile: Tile, row: u32) -> u32 {
    if side == 0u {
        return start_of_query(tile, row);
    }
    return index_of(tile, row) * (HEAD_DIM / 4u);
}

fn row_vector(side: u32, at: u32) -> vec4<f32> {
    if side == 0u {
        return query[at];
    }
    return grad[at];
}
