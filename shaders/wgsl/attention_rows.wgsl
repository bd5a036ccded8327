// For adapters that run on the CPU, without shared memory: an invocation has two rows (queries, or keys in the gradient of keys
// and values) and goes through the other side in blocks of sixteen. The sums over a block stay in registers; those of length D
// live in the output, which is read and written once a block.
#import common
#import attention_elements

const INVOCATIONS = 32u;
const BLOCK = 16u;

struct Block { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }
struct Rows { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }
struct Shown { a: vec4<bool>, b: vec4<bool>, c: vec4<bool>, d: vec4<bool> }

// The two positions of a head that an invocation works on; the first again where there is no second one.
struct Pair { batch: u32, head: u32, first: u32, second: u32 }

// Of `count` positions and some heads; past the last pair, the batch row is one that does not exist.
fn pair(index: u32, count: u32, heads: u32) -> Pair {
    if count == 0u {
        return Pair(params.batch, 0u, 0u, 0u);
    }
    let pairs = (count + 1u) / 2u;
    let first = index % pairs * 2u;
    return Pair(index / pairs / heads, index / pairs % heads, first, min(first + 1u, count - 1u));
}

// Sixteen positions from this one; past the end, the last again.
fn positions(first: u32, count: u32) -> Rows {
    let at = vec4(first) + vec4(0u, 1u, 2u, 3u);
    let last = vec4(count - 1u);
    return Rows(min(at, last), min(at + 4u, last), min(at + 8u, last), min(at + 12u, last));
}

// Where the rows at these positions start.
fn starts(lie: vec4<u32>, batch: u32, at: Rows, head: u32) -> Rows {
    let first = vec4(row_start(lie, batch, 0u, head));
    return Rows(first + at.a * lie.y, first + at.b * lie.y, first + at.c * lie.y, first + at.d * lie.y);
}

// Where the keys at these positions lie.
fn places(batch: u32, at: Rows) -> Rows {
    return Rows(four_places(batch, at.a), four_places(batch, at.b), four_places(batch, at.c), four_places(batch, at.d));
}

fn four_places(batch: u32, at: vec4<u32>) -> vec4<u32> {
    return vec4(place_of(batch, at.x), place_of(batch, at.y), place_of(batch, at.z), place_of(batch, at.w));
}

// Which of sixteen positions are visible; those past the end are in no range.
fn shown(range: vec2<u32>, batch: u32, position: u32, first: u32) -> Shown {
    let at = vec4(first) + vec4(0u, 1u, 2u, 3u);
    return Shown(
        visible(range, batch, position, at),
        visible(range, batch, position, at + 4u),
        visible(range, batch, position, at + 8u),
        visible(range, batch, position, at + 12u),
    );
}

fn add_scaled(sum: Block, factor: f32, x: Block) -> Block {
    return Block(sum.a + factor * x.a, sum.b + factor * x.b, sum.c + factor * x.c, sum.d + factor * x.d);
}

fn times(x: Block, y: Block) -> Block {
    return Block(x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d);
}

fn inner(x: Block, y: Block) -> f32 {
    return dot(x.a, y.a) + dot(x.b, y.b) + dot(x.c, y.c) + dot(x.d, y.d);
}

// x where shown, elsewhere `other`.
fn keep(shown: Shown, x: Block, other: f32) -> Block {
    let hidden = vec4(other);
    return Block(
        select(hidden, x.a, shown.a), select(hidden, x.b, shown.b), select(hidden, x.c, shown.c), select(hidden, x.d, shown.d)
    );
}

// e^(x - most), at most 1.
fn exp_below(x: Block, most: Block) -> Block {
    let zero = vec4(0.0);
    return Block(
        exp(min(x.a - most.a, zero)), exp(min(x.b - most.b, zero)), exp(min(x.c - most.c, zero)), exp(min(x.d - most.d, zero))
    );
}

fn all_of(x: f32) -> Block {
    return Block(vec4(x), vec4(x), vec4(x), vec4(x));
}

fn key_block(at: Rows, d: u32) -> Block {
    return Block(
        vec4(key[at.a.x + d], key[at.a.y + d], key[at.a.z + d], key[at.a.w + d]),
        vec4(key[at.b.x + d], key[at.b.y + d], key[at.b.z + d], key[at.b.w + d]),
        vec4(key[at.c.x + d], key[at.c.y + d], key[at.c.z + d], key[at.c.w + d]),
        vec4(key[at.d.x + d], key[at.d.y + d], key[at.d.z + d], key[at.d.w + d]),
    );
}

fn value_block(at: Rows, d: u32) -> Block {
    return Block(
        vec4(value[at.a.x + d], value[at.a.y + d], value[at.a.z + d], value[at.a.w + d]),
        vec4(value[at.b.x + d], value[at.b.y + d], value[at.b.z + d], value[at.b.w + d]),
        vec4(value[at.c.x + d], value[at.c.y + d], value[at.c.z + d], value[at.c.w + d]),
        vec4(value[at.d.x + d], value[at.d.y + d], value[at.d.z + d], value[at.d.w + d]),
    );
}
