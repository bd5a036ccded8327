// One pass: online softmax.
//
// The passes were there because the weights need the largest score, which is known at the end. But a wrong guess can be put
// right: with m the largest so far, keep the sums of e^(score - m) and of e^(score - m) v. When a larger score comes, both are
// multiplied by e^(old m - new m), and it is as if m had been right from the start (Milakov and Gimelshein 2018,
// arXiv:1805.02867). The scores never reach memory: what grew with the square of the positions is gone.
//
// The sum of values, D numbers long, lives in the output, which is read and written for every key.

struct Params { batch: u32, positions: u32, heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
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
    for (var d = 0u; d < width; d++) {
        output[mine + d] = vec4(0.0);
    }
    var most = LOWEST;
    var sum = 0.0;
    for (var s = 0u; s <= position; s++) {
        let theirs = row_start(batch, s, head);
        var score = 0.0;
        for (var d = 0u; d < width; d++) {
            score += dot(query[mine + d], key[theirs + d]);
        }
        let before = most;
        most = max(most, score * params.scale);
        let kept = exp(before - most);
        let weight = exp(score * params.scale - most);
        sum = sum * kept + weight;
        for (var d = 0u; d < width; d++) {
            output[mine + d] = output[mine + d] * kept + weight * value[theirs + d];
        }
    }
    for (var d = 0u; d < width; d++) {
        output[mine + d] /= sum;
    }
}

// Where a row of D elements begins, in vectors of four.
fn row_start(batch: u32, position: u32, head: u32) -> u32 {
    return ((batch * params.positions + position) * params.heads + head) * (params.head_dim / 4u);
}
