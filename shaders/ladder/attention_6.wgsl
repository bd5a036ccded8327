// For an adapter that runs on the CPU: sixteen keys at a time, and no shared memory.
//
// From here the ladder goes on from rung 2. The cache of a CPU does what tiles did, so they only cost copies and barriers. But
// the output should not be read and written for every key. Sixteen scores are held in registers at once, as four vectors; then
// the output is updated by all sixteen, for one load and one store.
//
// Four keys make a 4 x 4 block: a vector of the query times the block gives four terms of four scores, and a block of values
// times four weights gives a vector of the output. Keys past the query get the lowest score, and so the weight 0.

struct Params { batch: u32, positions: u32, heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

// Below every score, and finite: WGSL promises nothing of infinities.
const LOWEST = -1e30;
const KEYS = 16u;

struct Sixteen { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

@compute @workgroup_size(32)
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
    for (var first = 0u; first <= position; first += KEYS) {
        let at_a = row_starts(batch, first, head);
        let at_b = row_starts(batch, first + 4u, head);
        let at_c = row_starts(batch, first + 8u, head);
        let at_d = row_starts(batch, first + 12u, head);
        var scores = Sixteen();
        for (var d = 0u; d < width; d++) {
            let row = query[mine + d];
            scores.a += row * keys(at_a + d);
            scores.b += row * keys(at_b + d);
            scores.c += row * keys(at_c + d);
            scores.d += row * keys(at_d + d);
        }
        scores = seen(scores, first, position);
        let before = most;
        most = max(most, largest(scores));
        let kept = exp(before - most);
        let weights = exp_below(scores, most);
        sum = sum * kept + total(weights);
        for (var d = 0u; d < width; d++) {
            let block = values(at_a + d) * weights.a + values(at_b + d) * weights.b
                + values(at_c + d) * weights.c + values(at_d + d) * weights.d;
            output[mine + d] = output[mine + d] * kept + block;
        }
    }
    for (var d = 0u; d < width; d++) {
        output[mine + d] /= sum;
    }
}

// Scaled, and lowest where the key comes after the query.
fn seen(scores: Sixteen, first: u32, position: u32) -> Sixteen {
    let at = vec4(first) + vec4(0u, 1u, 2u, 3u);
    let hidden = vec4(LOWEST);
    return Sixteen(
        select(hidden, scores.a * params.scale, at <= vec4(position)),
        select(hidden, scores.b * params.scale, at + 4u <= vec4(position)),
        select(hidden, scores.c * params.scale, at + 8u <= vec4(position)),
        select(hidden, scores.d * params.scale, at + 12u <= vec4(position)),
    );
}

fn largest(x: Sixteen) -> f32 {
    let most = max(max(x.a, x.b), max(x.c, x.d));
    return max(max(most.x, most.y), max(most.z, most.w));
}

fn exp_below(x: Sixteen, most: f32) -> Sixteen {
    return Sixteen(exp(x.a - most), exp(x.b - most), exp(x.c - most), exp(x.d - most));
}

fn total(x: Sixteen) -> f32 {
    return dot(x.a + x.b + x.c + x.d, vec4(1.0));
}

fn keys(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4(key[at.x], key[at.y], key[at.z], key[at.w]);
}

fn values(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4(value[at.x], value[at.y], value[at.z], value[at.w]);
}

// Where the rows of four positions begin, in vectors of four; past the end, the last again.
fn row_starts(batch: u32, first: u32, head: u32) -> vec4<u32> {
    let positions = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(params.positions - 1u));
    return ((batch * params.positions + positions) * params.heads + head) * (params.head_dim / 4u);
}

// Where a row of D elements begins, in vectors of four.
fn row_start(batch: u32, position: u32, head: u32) -> u32 {
    return ((batch * params.positions + position) * params.heads + head) * (params.head_dim / 4u);
}
