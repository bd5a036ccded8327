// x [outer, length, inner] reduced over parts of `length`, `part` rows each but the last, to y [outer, parts, inner]. The numbers are
// those of engine/src/ops/reduce/kernels.rs.

struct Params { outer: u32, length: u32, inner: u32, part: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

const SUM = 0u;
const MAX = 1u;
const ARGMAX = 2u;
override OPERATION: u32 = 0u;

struct Best { value: f32, index: u32 }

// What is larger than nothing, NaN as it may be, leaves the first index, which there always is.
fn start() -> Best {
    return Best(select(-3.4028234e38, 0.0, OPERATION == SUM), 0u);
}

// The first of equal maxima wins, in whatever order they are met.
fn combine(a: Best, b: Best) -> Best {
    if OPERATION == SUM {
        return Best(a.value + b.value, 0u);
    }
    if b.value > a.value || (b.value == a.value && b.index < a.index) {
        return b;
    }
    return a;
}
