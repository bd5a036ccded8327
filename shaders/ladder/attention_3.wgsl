// Tiles of keys and values in shared memory.
//
// The 64 queries of a workgroup go through the same keys and values. They fetch them together, 16 positions at a time, and read
// them from shared memory: every key comes from memory once a workgroup instead of once a query. This is the first half of
// FlashAttention (Dao et al. 2022, arXiv:2205.14135).
//
// No invocation may miss a barrier, so all go on to the last key that any of them sees. Causality also says where a workgroup
// can stop: at its own last query.

struct Params { batch: u32, positions: u32, heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

// Below every score, and finite: WGSL promises nothing of infinities.
const LOWEST = -1e30;
const KEYS = 16u;

var<workgroup> keys: array<vec4<f32>, 512>; // [KEYS, D / 4], D at most 128
var<workgroup> values: array<vec4<f32>, 512>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let position = id.x;
    let head = id.y;
    let batch = id.z;
    let is_query = position < params.positions;
    let width = params.head_dim / 4u;
    let mine = row_start(batch, min(position, params.positions - 1u), head);
    if is_query {
        for (var d = 0u; d < width; d++) {
            output[mine + d] = vec4(0.0);
        }
    }
    var most = LOWEST;
    var sum = 0.0;
    let end = min((workgroup.x + 1u) * 64u, params.positions);
    for (var first = 0u; first < end; first += KEYS) {
        for (var i = lane; i < KEYS * width; i += 64u) {
            let at = row_start(batch, min(first + i / width, end - 1u), head) + i % width;
            keys[i] = key[at];
            values[i] = value[at];
        }
        workgroupBarrier();
        // The keys of this tile that this query sees.
        let seen = select(0u, min(position + 1u - min(first, position + 1u), KEYS), is_query);
        for (var s = 0u; s < seen; s++) {
            var score = 0.0;
            for (var d = 0u; d < width; d++) {
                score += dot(query[mine + d], keys[s * width + d]);
            }
            let before = most;
            most = max(most, score * params.scale);
            let kept = exp(before - most);
            let weight = exp(score * params.scale - most);
            sum = sum * kept + weight;
            for (var d = 0u; d < width; d++) {
                output[mine + d] = output[mine + d] * kept + weight * values[s * width + d];
            }
        }
        workgroupBarrier();
    }
    if is_query {
        for (var d = 0u; d < width; d++) {
            output[mine + d] /= sum;
        }
    }
}

// Where a row of D elements begins, in vectors of four.
fn row_start(batch: u32, position: u32, head: u32) -> u32 {
    return ((batch * params.positions + position) * params.heads + head) * (params.head_dim / 4u);
}
