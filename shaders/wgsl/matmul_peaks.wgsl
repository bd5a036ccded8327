// The largest finite magnitude of each `span` words of a tensor, as the bits of an f32: those order as the numbers do, and bf16 is the
// upper half of them. What is infinite or no number is so at any scale, and says nothing of the others. A maximum does not depend on the
// order.

struct Params { elements: u32, dtype: u32, span: u32 }

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> peaks: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

// How x is stored: f32 or bf16.
override DTYPE: u32 = 0u;

var<workgroup> largest: atomic<u32>;

// The bits of a word's largest finite magnitude: it holds one f32, or two bf16, of which the last may have no second.
fn magnitude(at: u32) -> u32 {
    let word = x[at];
    if DTYPE == 0u {
        return finite(word);
    }
    let second = select(0u, finite(word & 0xffff0000u), 2u * at + 1u < params.elements);
    return max(finite(word << 16u), second);
}

fn finite(word: u32) -> u32 {
    let bits = word & 0x7fffffffu;
    return select(0u, bits, bits < 0x7f800000u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&largest, 0u);
    }
    workgroupBarrier();
    let words = select((params.elements + 1u) / 2u, params.elements, DTYPE == 0u);
    let first = workgroup.x * params.span;
    let end = min(first + params.span, words);
    var mine = 0u;
    for (var at = first + lane; at < end; at += 256u) {
        mine = max(mine, magnitude(at));
    }
    atomicMax(&largest, mine);
    workgroupBarrier();
    if lane == 0u {
        peaks[workgroup.x] = atomicLoad(&largest);
    }
}
