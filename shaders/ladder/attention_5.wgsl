// Two matrix products a tile, with blocks in registers.
//
// With a row an invocation, each multiply-add of rung 4 reads shared memory once. The scores of a tile are a matrix product,
// query times key transposed, and so is the sum, weights times values: so what the matmul ladder learnt helps here. 16 x 16
// invocations share a tile of 64 queries by 32 keys: (x, y) has the scores of queries 4y to 4y + 3 with keys x and x + 16, and
// their sums in dimensions x, x + 16, .. A row now belongs to sixteen invocations: each has D / 16 of its sums, and they agree
// on its largest score through shared memory.
//
// Softmax needs whole rows only for the largest score and the sum: the largest once a tile, the sum once at the end.
//
// This is the forward kernel that the project uses on real GPUs: `attention_tile`, which adds masks, grouped heads and strides.

struct Params { batch: u32, positions: u32, heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> query: array<f32>;
@group(0) @binding(1) var<storage, read> key: array<f32>;
@group(0) @binding(2) var<storage, read> value: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

// Below every score, and finite: WGSL promises nothing of infinities.
const LOWEST = -1e30;
const QUERIES = 64u;
const KEYS = 32u;
const DEPTH = 16u; // dimensions that pass through shared memory at a time
override HEAD_DIM: u32 = 128u;

// Rows are one element longer than they need, so that reading down a column meets different banks.
var<workgroup> query_tile: array<f32, 1088>; // [QUERIES, DEPTH + 1]
var<workgroup> key_tile: array<f32, 544>; // [KEYS, DEPTH + 1], of keys and then of values
var<workgroup> weights: array<f32, 2112>; // [QUERIES, KEYS + 1]

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let x = local.x;
    let y = local.y;
    let head = workgroup.y;
    let batch = workgroup.z;
    let first_query = workgroup.x * QUERIES;
    let rows = vec4(first_query + 4u * y) + vec4(0u, 1u, 2u, 3u);
    // Of the four rows: the largest score so far, the sum of e^(score - largest) over this invocation's keys, and of e^(..) v.
    var most = vec4(LOWEST);
    var sum = vec4(0.0);
    var sums: array<vec4<f32>, 8>;
    for (var first = 0u; first < min(first_query + QUERIES, params.positions); first += KEYS) {
        var left = vec4(0.0); // the scores with key x
        var right = vec4(0.0); // and with key x + 16
        for (var depth = 0u; depth < HEAD_DIM; depth += DEPTH) {
            workgroupBarrier();
            for (var i = y; i < QUERIES; i += 16u) {
                query_tile[i * 17u + x] = load_query(batch, first_query + i, head, depth + x);
            }
            key_tile[y * 17u + x] = load_key(batch, first + y, head, depth + x);
            key_tile[(y + 16u) * 17u + x] = load_key(batch, first + y + 16u, head, depth + x);
            workgroupBarrier();
            for (var d = 0u; d < DEPTH; d++) {
                let i = 4u * y * 17u + d;
                let column = vec4(query_tile[i], query_tile[i + 17u], query_tile[i + 34u], query_tile[i + 51u]);
                left += column * key_tile[x * 17u + d];
                right += column * key_tile[(x + 16u) * 17u + d];
            }
        }
        left = select(vec4(LOWEST), left * params.scale, vec4(first + x) <= rows);
        right = select(vec4(LOWEST), right * params.scale, vec4(first + x + 16u) <= rows);

        let before = most;
        most = largest_of_rows(max(most, max(left, right)), x, y);
        let kept = exp(before - most);
        left = exp(left - most);
        right = exp(right - most);
        sum = sum * kept + left + right;
        for (var i = 0u; i < 4u; i++) {
            weights[(4u * y + i) * 33u + x] = left[i];
            weights[(4u * y + i) * 33u + x + 16u] = right[i];
        }

        for (var chunk = 0u; chunk * DEPTH < HEAD_DIM; chunk++) {
            workgroupBarrier();
            key_tile[y * 17u + x] = load_value(batch, first + y, head, chunk * DEPTH + x);
            key_tile[(y + 16u) * 17u + x] = load_value(batch, first + y + 16u, head, chunk * DEPTH + x);
            workgroupBarrier();
            var product = vec4(0.0);
            for (var s = 0u; s < KEYS; s++) {
                let i = 4u * y * 33u + s;
                product += vec4(weights[i], weights[i + 33u], weights[i + 66u], weights[i + 99u]) * key_tile[s * 17u + x];
            }
            sums[chunk] = sums[chunk] * kept + product;
        }
    }
    sum = sum_of_rows(sum, x, y);
    for (var i = 0u; i < 4u; i++) {
        for (var chunk = 0u; chunk * DEPTH < HEAD_DIM; chunk++) {
            let d = chunk * DEPTH + x;
            if rows[i] < params.positions && d < HEAD_DIM {
                output[row_start(batch, rows[i], head) + d] = sums[chunk][i] / sum[i];
            }
        }
    }
}

// Over the sixteen invocations that share four rows, in a fixed order, so that the same bits come out every time.
fn largest_of_rows(mine: vec4<f32>, x: u32, y: u32) -> vec4<f32> {
    share(mine, x, y);
    var most = mine;
    for (var other = 0u; other < 16u; other++) {
        most = max(most, shared_by(other, y));
    }
    return most;
}

fn sum_of_rows(mine: vec4<f32>, x: u32, y: u32) -> vec4<f32> {
    share(mine, x, y);
    var sum = vec4(0.0);
    for (var other = 0u; other < 16u; other++) {
        sum += shared_by(other, y);
    }
    return sum;
}

// The query tile is free when rows are shared.
fn share(mine: vec4<f32>, x: u32, y: u32) {
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
        query_tile[(4u * y + i) * 17u + x] = mine[i];
    }
    workgroupBarrier();
}

fn shared_by(x: u32, y: u32) -> vec4<f32> {
    let i = 4u * y * 17u + x;
    return vec4(query_tile[i], query_tile[i + 17u], query_tile[i + 34u], query_tile[i + 51u]);
}

fn load_query(batch: u32, position: u32, head: u32, d: u32) -> f32 {
    if position < params.positions && d < HEAD_DIM {
        return query[row_start(batch, position, head) + d];
    }
    return 0.0;
}

fn load_key(batch: u32, position: u32, head: u32, d: u32) -> f32 {
    if position < params.positions && d < HEAD_DIM {
        return key[row_start(batch, position, head) + d];
    }
    return 0.0;
}

fn load_value(batch: u32, position: u32, head: u32, d: u32) -> f32 {
    if position < params.positions && d < HEAD_DIM {
        return value[row_start(batch, position, head) + d];
    }
    return 0.0;
}

// Where a row of D elements begins.
fn row_start(batch: u32, position: u32, head: u32) -> u32 {
    return ((batch * params.positions + position) * params.heads + head) * HEAD_DIM;
}
