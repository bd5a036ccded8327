// Attention with eight queries a subgroup.
#import attention_query_subgroups

@group(0) @binding(5) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> log_sums: array<f32>;

// Of each row the largest score so far, and this lane's part of the sum of e^(score - largest).
struct State { most: array<f32, ROWS>, total: array<f32, ROWS> }

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
            attend(tile);
        }
    }
}

fn attend(start: Tile) {
    var tile = start;
    var state: State;
    var sums: Sums;
    for (var r = 0u; r < ROWS; r++) {
        state.most[r] = HIDDEN;
    }
    let reach = reach_of(tile);
    for (tile.column = reach.x; tile.column < reach.y; tile.column += 4u * tile.lanes) {
        let scores = products(0u, tile);
        let weights = Scores(
            weigh(&state, &sums, tile, 0u, scores[0]),
            weigh(&state, &sums, tile, 1u, scores[1]),
            weigh(&state, &sums, tile, 2u, scores[2]),
            weigh(&state, &sums, tile, 3u, scores[3]),
            weigh(&state, &sums, tile, 4u, scores[4]),
            weigh(&state, &sums, tile, 5u, scores[5]),
            weigh(&state, &sums, tile, 6u, scores[6]),
            weigh(&state, &sums, tile, 7u, scores[7]),
        );
        accumulate(1u, tile, reach.y, weights, &sums);
    }
    write(&state, &sums, tile, 0u);
    write(&state, &sums, tile, 1u);
    write(&state, &sums, tile, 2u);
    write(&state, &sums, tile, 3u);
    write(&state, &sums, tile, 4u);
    write(&state, &sums, tile, 5u);
    write(&state, &sums, tile, 6u);
    write(&state, &sums, tile, 7u);
}

// Turns a row's scores into weights e^(score - largest), moving what was summed so far to the new largest.
fn weigh(state: ptr<function, State>, sums: ptr<function, Sums>, tile: Tile, r: u32, products: vec4<f32>) -> vec4<f32> {
    let seen = shown(tile, tile.row + r);
    let scores = select(vec4(HIDDEN), products * params.scale, seen);
    let pairs = max(scores.xy, scores.zw);
    let before = (*state).most[r];
    let most = max(before, subgroupMax(max(pairs.x, pairs.y)));
    let kept = exp(min(before - most, 0.0));
    let weights = select(vec4(0.0), exp(min(scores - most, vec4(0.0))), seen);
    (*state).most[r] = most;
    (*state).total[r] = (*state).total[r] * kept + dot(weights, vec4(1.0));
    (*sums)[r * CHUNKS] *= kept;
    (*sums)[r * CHUNKS + 1u] *= kept;
    (*sums)[r * CHUNKS + 2u] *= kept;
    (*sums)[r * CHUNKS + 3u] *= kept;
    return weights;
}

fn write(state: ptr<function, State>, sums: ptr<function, Sums>, tile: Tile, r: u32) {
    let total = subgroupAdd((*state).total[r]);
    if tile.row + r >= rows() {
        return;
    }
    let index = index_of(tile, tile.row + r);
    let scale = select(1.0 / total, 0.0, total == 0.0);
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
        let at = (tile.chunk + chunk) * tile.lanes + tile.lane;
        if at < HEAD_DIM / 4u {
            output[index * (HEAD_DIM / 4u) + at] = (*sums)[r * CHUNKS + chunk] * scale;
        }
    }
    if tile.lane == 0u && tile.chunk == 0u {
        log_sums[index] = select((*state).most[r] + log(total), HIDDEN, total == 0.0);
    }
}

fn start_of_row(side: u32, tile: Tile, row: u32) -> u32 {
    return start_of_query(tile, row);
}

fn row_vector(side: u32, at: u32) -> vec4<f32> {
    return query[at];
}
