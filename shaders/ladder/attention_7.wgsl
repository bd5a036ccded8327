// Two queries an invocation, which share every load of keys and values.
//
// The last step of the other ladder, in registers alone: two neighbouring queries see the same keys, but for the last. Each
// vector of a key or a value is loaded once and used twice. The second query of an odd number of positions is the first again.
//
// This is the forward kernel that the project uses on software adapters without subgroups: `attention_row`, which adds masks,
// grouped heads and strides.

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
    let head = id.y;
    let batch = id.z;
    if id.x * 2u >= params.positions {
        return;
    }
    let width = params.head_dim / 4u;
    let position_x = id.x * 2u;
    let position_y = min(position_x + 1u, params.positions - 1u);
    let x = row_start(batch, position_x, head);
    let y = row_start(batch, position_y, head);
    for (var d = 0u; d < width; d++) {
        output[x + d] = vec4(0.0);
        output[y + d] = vec4(0.0);
    }
    // Of both queries.
    var most = vec2(LOWEST);
    var sum = vec2(0.0);
    for (var first = 0u; first <= position_y; first += KEYS) {
        let at_a = row_starts(batch, first, head);
        let at_b = row_starts(batch, first + 4u, head);
        let at_c = row_starts(batch, first + 8u, head);
        let at_d = row_starts(batch, first + 12u, head);
        var scores_x = Sixteen();
        var scores_y = Sixteen();
        for (var d = 0u; d < width; d++) {
            let block = array(keys(at_a + d), keys(at_b + d), keys(at_c + d), keys(at_d + d));
            scores_x = add_products(scores_x, query[x + d], block);
            scores_y = add_products(scores_y, query[y + d], block);
        }
        scores_x = seen(scores_x, first, position_x);
        scores_y = seen(scores_y, first, position_y);
        let before = most;
        most = max(most, vec2(largest(scores_x), largest(scores_y)));
        let kept = exp(before - most);
        let weights_x = exp_below(scores_x, most.x);
        let weights_y = exp_below(scores_y, most.y);
        sum = sum * kept + vec2(total(weights_x), total(weights_y));
        for (var d = 0u; d < width; d++) {
            let block = array(values(at_a + d), values(at_b + d), values(at_c + d), values(at_d + d));
            let sum_x = output[x + d] * kept.x + weighted(block, weights_x);
            let sum_y = output[y + d] * kept.y + weighted(block, weights_y);
            output[x + d] = sum_x;
            output[y + d] = sum_y;
        }
    }
    for (var d = 0u; d < width; d++) {
        let mean_x = output[x + d] / sum.x;
        let mean_y = output[y + d] / sum.y;
        output[x + d] = mean_x;
        output[y + d] = mean_y;
    }
}

fn add_products(scores: Sixteen, row: vec4<f32>, keys: array<mat4x4<f32>, 4>) -> Sixteen {
    return Sixteen(
        scores.a + row * keys[0], scores.b + row * keys[1], scores.c + row * keys[2], scores.d + row * keys[3]
    );
}

fn weighted(values: array<mat4x4<f32>, 4>, weights: Sixteen) -> vec4<f32> {
    return values[0] * weights.a + values[1] * weights.b + values[2] * weights.c + values[3] * weights.d;
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
