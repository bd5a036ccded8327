// What the attention kernels share: query [B, T, H, D], key and value [B, S, KV, D], and which keys a query sees. The forward
// kernel may take the keys in parts, each as a batch row of its own, and the gradient of keys and values the queries: `batch` counts
// B * parts rows. The forward kernel may find keys in pages [P, page_size, KV, D] that all rows share; the queries are then the last T
// tokens of their rows.

struct Params {
    batch: u32, queries: u32, keys: u32, heads: u32, key_heads: u32, head_dim: u32,
    start: u32, window: u32, prefix: u32, causal: u32, has_lengths: u32, has_segments: u32,
    parts: u32, scale: f32, page_size: u32, pages: u32,
    // How the inputs lie: the strides of batch, position and head, then the offset.
    query: vec4<u32>, key: vec4<u32>, value: vec4<u32>,
}

// [B]; and [B, T], or the pages [B, W] of each row's keys, which have no segments. Where the parameters say that they are there.
@group(0) @binding(3) var<storage, read> lengths: array<u32>;
@group(0) @binding(4) var<storage, read> segments_or_pages: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

const HIDDEN = -1e30;
const UNLIMITED = 0xffffffffu;

// Whether there are several parts, and whether keys may lie in pages: adapters on the CPU go through both sides of what is only known
// when it runs.
override IN_PARTS: bool = true;
override IN_PAGES: bool = true;

// The batch row of the inputs.
fn input_row(batch: u32) -> u32 {
    if IN_PARTS {
        return batch / params.parts;
    }
    return batch;
}

// Where a row of D elements starts.
fn row_start(lie: vec4<u32>, batch: u32, position: u32, head: u32) -> u32 {
    return lie.w + input_row(batch) * lie.x + position * lie.y + head * lie.z;
}

// Where a key lies: at its position in its batch row, or in the page that the row's table names.
fn place_of(batch: u32, position: u32) -> u32 {
    if !IN_PAGES || params.page_size == 0u {
        return position;
    }
    let page = segments_or_pages[input_row(batch) * params.pages + position / params.page_size];
    return page * params.page_size + position % params.page_size;
}

// Where the row of D elements of a key, or of its value, starts.
fn key_start(lie: vec4<u32>, batch: u32, position: u32, head: u32) -> u32 {
    return row_start(lie, batch, place_of(batch, position), head);
}

// The index of a row in a result [B * parts, T, H, ..].
fn query_row(batch: u32, position: u32, head: u32) -> u32 {
    return (batch * params.queries + position) * params.heads + head;
}

// The same of an input [B, T, H, ..] without gaps.
fn given_row(batch: u32, position: u32, head: u32) -> u32 {
    return query_row(input_row(batch), position, head);
}

// How many query heads share a key head.
fn group() -> u32 {
    return params.heads / params.key_heads;
}

// How many keys of a batch row may be seen at all.
fn length(batch: u32) -> u32 {
    if params.has_lengths == 1u {
        return min(params.keys, lengths[input_row(batch)]);
    }
    return params.keys;
}

// The position of query 0 among the keys; below 0 where a row in pages has fewer tokens than there are queries.
fn start_of(batch: u32) -> i32 {
    if IN_PAGES && params.page_size > 0u {
        return i32(length(batch)) - i32(params.queries);
    }
    return i32(params.start);
}

// Of a range x <= at < y of `count` what lies in a batch row's part.
fn in_part(batch: u32, count: u32, range: vec2<u32>) -> vec2<u32> {
    if !IN_PARTS {
        return vec2(min(range.x, range.y), range.y);
    }
    let size = (count + params.parts - 1u) / params.parts;
    let first = batch % params.parts * size;
    let end = min(range.y, first + size);
    return vec2(min(max(range.x, first), end), end);
}

// The keys x <= key < y that a query may see, apart from segments.
fn all_seen_by(batch: u32, position: u32) -> vec2<u32> {
    let next = u32(max(start_of(batch) + i32(position) + 1, 0));
    let causal_end = max(next, params.prefix);
    let end = select(length(batch), min(length(batch), causal_end), params.causal == 1u);
    return vec2(next - min(next, params.window), end);
}

// Those of the batch row's part of the keys.
fn seen_by(batch: u32, position: u32) -> vec2<u32> {
    return in_part(batch, params.keys, all_seen_by(batch, position));
}

// The first element of the values' gradients, which are written behind those of the keys, where every device can bind them.
fn values_start() -> u32 {
    return (params.batch * params.keys * params.key_heads * params.head_dim + 63u) / 64u * 64u;
}

// The queries x <= position < y that may see a key, apart from segments: none, if the key is not of the batch row's part.
fn seeing(batch: u32, at: u32) -> vec2<u32> {
    let own = in_part(batch, params.keys, vec2(at, at + 1u));
    return select(vec2(0u), all_seeing(batch, at), own.x < own.y);
}

// Those of the batch row's part of the queries.
fn seeing_of_part(batch: u32, at: u32) -> vec2<u32> {
    return in_part(batch, params.queries, all_seeing(batch, at));
}

// And those that may see any of the keys from `first` to before `end`: both bounds grow with the key.
fn seeing_any_of(batch: u32, first: u32, end: u32) -> vec2<u32> {
    return in_part(batch, params.queries, vec2(all_seeing(batch, first).x, all_seeing(batch, end - 1u).y));
}

fn all_seeing(batch: u32, at: u32) -> vec2<u32> {
    if at >= length(batch) {
        return vec2(0u);
    }
    let own = i32(at) - start_of(batch);
    let first = select(0u, u32(max(own, 0)), params.causal == 1u && at >= params.prefix);
    var end = params.queries;
    if params.window != UNLIMITED {
        end = min(end, u32(max(own + i32(params.window), 0)));
    }
    return vec2(min(first, end), end);
}

// Which of four positions lie in a range, and share this position's segment. Where there are segments there are as many keys as
// queries, so that either may stand on either side, and keys are not in parts.
fn visible(range: vec2<u32>, batch: u32, position: u32, others: vec4<u32>) -> vec4<bool> {
    let inside = (others >= vec4(range.x)) & (others < vec4(range.y));
    if params.has_segments == 0u {
        return inside;
    }
    let row = input_row(batch) * params.queries;
    let at = row + min(others, vec4(params.queries - 1u));
    let theirs = vec4(segments_or_pages[at.x], segments_or_pages[at.y], segments_or_pages[at.z], segments_or_pages[at.w]);
    return inside & (theirs == vec4(segments_or_pages[row + min(position, params.queries - 1u)]));
}

// The first query of a tile of so many. Where queries see what is before them, the last see the most: their tiles come first, so that
// none that takes long is begun late.
fn first_query(tile: u32, rows: u32) -> u32 {
    let last = (params.queries - 1u) / rows;
    return rows * select(tile, last - tile, params.causal == 1u);
}
