// What a subgroup's invocations all need, each loads a part of and hands round.
//
// In rung 7 every lane has its own queries, and all lanes load the same keys and values, each for itself. Here a subgroup has
// four queries in common and its lanes divide the rest. For the scores they divide the keys, four a lane: a vector of each query
// is loaded by one lane and broadcast. For the output they divide D, a vector a lane: each lane's weights go round in turn.
// Largest scores and sums are found across the lanes.
//
// All of it is products of 4 x 4 matrices: keys times queries, values times weights.
//
// This is the idea of the forward kernel that the project uses on software adapters with subgroups: `attention_subgroup`, which
// has eight queries and their sums in registers, and adds masks, grouped heads and strides.

struct Params { batch: u32, positions: u32, heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

// Below every score, and finite: WGSL promises nothing of infinities.
const LOWEST = -1e30;

@compute @workgroup_size(32)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // 32 queries a workgroup, four at a time, however many subgroups it has.
    for (var i = subgroup; i < 8u; i += subgroups) {
        attend((workgroup.x * 8u + i) * 4u, workgroup.y, workgroup.z, lanes, lane);
    }
}

// Four queries from this one on. What stands past the end is computed like the last, and not written.
fn attend(position: u32, head: u32, batch: u32, lanes: u32, lane: u32) {
    let width = params.head_dim / 4u;
    let rows = row_starts(batch, position, head);
    let mine = row_start(batch, min(position + lane % 4u, params.positions - 1u), head);
    // Of each query: the largest score so far, and this lane's part of the sum.
    var most = vec4(LOWEST);
    var sum = vec4(0.0);
    for (var first = 0u; first < min(position + 4u, params.positions); first += 4u * lanes) {
        let own = first + 4u * lane;
        let at = row_starts(batch, own, head);
        // scores[i] are those of query i with this lane's four keys.
        var scores: mat4x4<f32>;
        for (var d = 0u; d < width; d++) {
            scores += transpose(keys(at + d)) * broadcast(query[mine + d]);
        }
        scores = mat4x4(
            seen(scores[0], own, position),
            seen(scores[1], own, position + 1u),
            seen(scores[2], own, position + 2u),
            seen(scores[3], own, position + 3u),
        );
        let before = most;
        most = max(most, subgroupMax(vec4(largest(scores[0]), largest(scores[1]), largest(scores[2]), largest(scores[3]))));
        let kept = exp(before - most);
        let weights = mat4x4(
            exp(scores[0] - most.x), exp(scores[1] - most.y), exp(scores[2] - most.z), exp(scores[3] - most.w)
        );
        sum = sum * kept + vec4(1.0) * weights;
        // As often for all lanes: nobody may be missing when weights go round.
        for (var d = lane; d < width + lane; d += lanes) {
            // sums[i] is a vector of the output of query i.
            var sums: mat4x4<f32>;
            for (var other = 0u; other < lanes; other++) {
                let theirs = row_starts(batch, first + 4u * other, head);
                sums += values(theirs + min(d, width - 1u)) * shuffle(weights, other);
            }
            if d < width {
                update(position, rows.x + d, kept.x, sums[0]);
                update(position + 1u, rows.y + d, kept.y, sums[1]);
                update(position + 2u, rows.z + d, kept.z, sums[2]);
                update(position + 3u, rows.w + d, kept.w, sums[3]);
            }
        }
    }
    let scale = 1.0 / subgroupAdd(sum);
    for (var d = lane; d < width; d += lanes) {
        update(position, rows.x + d, scale.x, vec4(0.0));
        update(position + 1u, rows.y + d, scale.y, vec4(0.0));
        update(position + 2u, rows.z + d, scale.z, vec4(0.0));
        update(position + 3u, rows.w + d, scale.w, vec4(0.0));
    }
}

// What is there times a factor, and a term. A factor of 0, as with the first keys, forgets what is there, even if it is NaN.
fn update(position: u32, at: u32, factor: f32, term: vec4<f32>) {
    if position < params.positions {
        output[at] = select(output[at] * factor, vec4(0.0), factor == 0.0) + term;
    }
}

// A vector of each of the first four lanes.
fn broadcast(mine: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(
        subgroupBroadcast(mine, 0u),
        subgroupBroadcast(mine, 1u),
        subgroupBroadcast(mine, 2u),
        subgroupBroadcast(mine, 3u),
    );
}

fn shuffle(mine: mat4x4<f32>, lane: u32) -> mat4x4<f32> {
    return mat4x4(
        subgroupShuffle(mine[0], lane),
        subgroupShuffle(mine[1], lane),
        subgroupShuffle(mine[2], lane),
        subgroupShuffle(mine[3], lane),
    );
}

// Scaled, and lowest where the key comes after the query.
fn seen(scores: vec4<f32>, first: u32, position: u32) -> vec4<f32> {
    let at = vec4(first) + vec4(0u, 1u, 2u, 3u);
    return select(vec4(LOWEST), scores * params.scale, at <= vec4(position));
}

fn largest(x: vec4<f32>) -> f32 {
    return max(max(x.x, x.y), max(x.z, x.w));
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
