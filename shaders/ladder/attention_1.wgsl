// Three passes, the scores in memory.
//
// Causal attention of query, key and value, all [batch, positions, heads, D]: position t takes the mean of the values at s <=
// t, weighted by e^(score), where score = q_t k_s scale. Each invocation has one row, a position of a head: it computes all
// scores, then all weights, then the mean, as the formula reads. The largest score is taken off every one, so that e^x cannot
// overflow.
//
// What it costs: the scores are positions x positions numbers a head, written once and read three times. At 8,192 positions
// that is 256 MiB a head, for an output of 2 MiB.
//
// D is a multiple of 4, and rows are read in vectors of four.

struct Params { batch: u32, positions: u32, heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> scores: array<f32>; // [batch, heads, positions, positions]
@group(1) @binding(0) var<uniform> params: Params;

// Below every score, and finite: WGSL promises nothing of infinities.
const LOWEST = -1e30;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let position = id.x;
    let head = id.y;
    let batch = id.z;
    if position >= params.positions {
        return;
    }
    let width = params.head_dim / 4u;
    let mine = row_start(batch, position, head);
    let at = ((batch * params.heads + head) * params.positions + position) * params.positions;
    var most = LOWEST;
    for (var s = 0u; s <= position; s++) {
        let theirs = row_start(batch, s, head);
        var score = 0.0;
        for (var d = 0u; d < width; d++) {
            score += dot(query[mine + d], key[theirs + d]);
        }
        scores[at + s] = score * params.scale;
        most = max(most, score * params.scale);
    }
    var sum = 0.0;
    for (var s = 0u; s <= position; s++) {
        let weight = exp(scores[at + s] - most);
        scores[at + s] = weight;
        sum += weight;
    }
    for (var d = 0u; d < width; d++) {
        var mean = vec4(0.0);
        for (var s = 0u; s <= position; s++) {
            mean += scores[at + s] * value[row_start(batch, s, head) + d];
        }
        output[mine + d] = mean / sum;
    }
}

// Where a row of D elements begins, in vectors of four.
fn row_start(batch: u32, position: u32, head: u32) -> u32 {
    return ((batch * params.positions + position) * params.heads + head) * (params.head_dim / 4u);
}
