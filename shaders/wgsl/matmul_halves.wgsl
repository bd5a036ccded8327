// A tensor as f16, two elements a word, times a power of two that brings its largest magnitude into f16's range.
#import common
#import storage

struct Params { elements: u32, dtype: u32, span: u32, peaks: u32, pairs: u32 }

@group(0) @binding(0) var<storage, read> x: array<u32>;
// Magnitudes, of which the largest is x's, as the bits of an f32: 256 at most.
@group(0) @binding(1) var<storage, read> peaks: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<storage, read_write> scale: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

// How x is stored: f32 or bf16.
override DTYPE: u32 = 0u;

const F16 = 1u;

var<workgroup> largest: atomic<u32>;

// The power of two that brings a peak between 2^14 and 2^15: f16 ends just below 2^16, and rounds to zero what is below 2^-25. A peak
// from 2^-6 on and below 2^15 stays, so that most rows do not depend on those beside them.
fn factor(peak: u32) -> f32 {
    let exponent = i32(peak >> 23u);
    let stays = (exponent == 0) | ((exponent >= 121) & (exponent < 142));
    return bitcast<f32>(u32(select(clamp(268 - exponent, 1, 253), 127, stays)) << 23u);
}

fn element(at: u32) -> f32 {
    if at >= params.elements {
        return 0.0;
    }
    if DTYPE == 0u {
        return bitcast<f32>(x[at]);
    }
    let word = x[at / 2u];
    return select(widen_low(DTYPE, word), widen_high(DTYPE, word), at % 2u == 1u);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if lane == 0u {
        atomicStore(&largest, 0u);
    }
    workgroupBarrier();
    if lane < params.peaks {
        atomicMax(&largest, peaks[lane]);
    }
    workgroupBarrier();
    let by = factor(atomicLoad(&largest));
    let number = linear_workgroup(workgroup, workgroups);
    if number == 0u && lane == 0u {
        scale[0] = by;
    }
    for (var i = 0u; i < 8u; i++) {
        let pair = (number * 8u + i) * 256u + lane;
        if pair < params.pairs {
            y[pair] = narrow(F16, by * element(2u * pair), by * element(2u * pair + 1u));
        }
    }
}
