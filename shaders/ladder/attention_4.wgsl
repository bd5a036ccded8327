// The query and the sums in registers.
//
// What is left in memory is the query, read for every key, and the output, read and written for every key. Both become private
// arrays. They only turn into registers if every index is known when the shader is compiled: so D is no longer a parameter but
// an `override`, set when the pipeline is made, and the loops over it are unrolled.
//
// D sums and D elements of the query are up to 256 registers: at a large D this is slow again, and the next rung says why.

struct Params { batch: u32, positions: u32, heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> key: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> value: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

// Below every score, and finite: WGSL promises nothing of infinities.
const LOWEST = -1e30;
const KEYS = 16u;
override HEAD_DIM: u32 = 128u;

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
    let width = HEAD_DIM / 4u;
    let mine = row_start(batch, min(position, params.positions - 1u), head);
    var row: array<vec4<f32>, 32>;
    var sums: array<vec4<f32>, 32>;
    for (var d = 0u; d < width; d++) {
        row[d] = query[mine + d] * params.scale;
        sums[d] = vec4(0.0);
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
                score += dot(row[d], keys[s * width + d]);
            }
            let before = most;
            most = max(most, score);
            let kept = exp(before - most);
            let weight = exp(score - most);
            sum = sum * kept + weight;
            for (var d = 0u; d < width; d++) {
                sums[d] = sums[d] * kept + weight * values[s * width + d];
            }
        }
        workgroupBarrier();
    }
    if is_query {
        for (var d = 0u; d < width; d++) {
            output[mine + d] = sums[d] / sum;
        }
    }
}

// Where a row of D elements begins, in vectors of four.
fn row_start(batch: u32, position: u32, head: u32) -> u32 {
    return ((batch * params.positions + position) * params.heads + head) * (HEAD_DIM / 4u);
}
