// What the attention kernels share: query [B, T, H, D], key and value [B, S, KV, D], and which keys a query sees. The forward
// kernel may take the keys in parts, each as a batch row of its own: `batch` counts B * parts rows.

struct Params {
    batch: u32, queries: u32, keys: u32, heads: u32, key_heads: u32, head_dim: u32,
    start: u32, window: u32, prefix: u32, causal: u32, has_lengths: u32, has_segments: u32,
    parts: u32, scale: f32,
    // How the inputs lie: the strides of batch, position and head, then the offset.
    query: vec4<u32>, key: vec4<u32>, value: vec4<u32>,
}

// [B] and [B, T], where the parameters say that they are there.
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
@group(0) @binding(4) var<storage, read> segments: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

const HIDDEN = -1e30;
const UNLIMITED = 0xffffffffu;

// Where a row of D elements starts.
fn row_start(lie: vec4<u32>, batch: u32, position: u32, head: u32) -> u32 {
    return lie.w + batch / params.parts * lie.x + position * lie.y + head * lie.z;
}

// The index of a row in a tensor [B, T, H, ..] without gaps.
fn query_row(batch: u32, position: u32, head: u32) -> u32 {
    return (batch * params.queries + position) * params.heads + head;
}

// How many query heads share a key head.
fn group() -> u32 {
    return params.heads / params.key_heads;
}

// How many keys of a batch row may be seen at all.
fn length(batch: u32) -> u32 {
    if params.has_lengths == 1u {
        return min(params.keys, lengths[batch / params.parts]);
    }
    return params.keys;
}

// The keys x <= key < y of a batch row's part.
fn part_of(batch: u32) -> vec2<u32> {
    let size = (params.keys + params.parts - 1u) / params.parts;
    let first = batch % params.parts * size;
    return vec2(first, first + size);
}

// The keys x <= key < y that a query may see, apart from segments.
fn seen_by(batch: u32, position: u32) -> vec2<u32> {
    let next = params.start + position + 1u;
    let causal_end = max(next, params.prefix);
    let end = select(length(batch), min(length(batch), causal_end), params.causal == 1u);
    let first = next - min(next, params.window);
    let part = part_of(batch);
    let part_end = min(end, part.y);
    return vec2(min(max(first, part.x), part_end), part_end);
}

// The first element of the values' gradients, which are written behind those of the keys, where every device can bind them.
fn values_start() -> u32 {
    return (params.batch * params.keys * params.key_heads * params.head_dim + 63u) / 64u * 64u;
}

// The queries x <= position < y that may see a key, apart from segments.
fn seeing(batch: u32, at: u32) -> vec2<u32> {
    let part = part_of(batch);
    if at >= length(batch) || at < part.x || at >= part.y {
        return vec2(0u);
    }
    let first = select(0u, at - min(at, params.start), params.causal == 1u && at >= params.prefix);
    var end = params.queries;
    if params.window != UNLIMITED {
        let past = at + params.window;
        end = min(end, past - min(past, params.start));
    }
    return vec2(min(first, end), end);
}

// Which of four positions lie in a range, and share this position's segment. Where there are segments there are as many keys as
// queries, so that either may stand on either side.
fn visible(range: vec2<u32>, batch: u32, position: u32, others: vec4<u32>) -> vec4<bool> {
    let inside = (others >= vec4(range.x)) & (others < vec4(range.y));
    if params.has_segments == 0u {
        return inside;
    }
    let row = batch * params.queries;
    let at = row + min(others, vec4(params.queries - 1u));
    let theirs = vec4(segments[at.x], segments[at.y], segments[at.z], segments[at.w]);
    return inside & (theirs == vec4(segments[row + min(position, params.queries - 1u)]));
}
