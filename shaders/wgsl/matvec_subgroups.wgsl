// A subgroup for two rows at a time, which share what it reads of x; its invocations read 16 bytes of each. Rows are whole vectors of
// 16 bytes. However many invocations a subgroup has, up to a workgroup's, all rows find one.
#import common
#import matvec_params

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<u32>>;

const INVOCATIONS = 64u;
// Of a workgroup.
const ROWS = 4u;

// The products of the vector at `at` of a row and what it meets of x, the vector at `k`.
fn products(at: u32, k: u32) -> vec4<f32> {
    let words = weight[at];
    if DTYPE == 0u {
        return bitcast<vec4<f32>>(words) * x[k];
    }
    let low = vec4(widen_low(DTYPE, words.x), widen_high(DTYPE, words.x), widen_low(DTYPE, words.y), widen_high(DTYPE, words.y));
    let high = vec4(widen_low(DTYPE, words.z), widen_high(DTYPE, words.z), widen_low(DTYPE, words.w), widen_high(DTYPE, words.w));
    return low * x[2u * k] + high * x[2u * k + 1u];
}

fn total(sums: vec4<f32>) -> f32 {
    return subgroupAdd((sums.x + sums.y) + (sums.z + sums.w));
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let elements = select(8u, 4u, DTYPE == 0u);
    let length = params.k / elements;
    for (var at = 2u * subgroup; at < ROWS; at += 2u * subgroups) {
        let row = linear_workgroup(workgroup, workgroups) * ROWS + at;
        // Past the end rows repeat the last.
        let starts = params.offset / elements + min(vec2(row, row + 1u), vec2(params.n - 1u)) * length;
        var first = vec4(0.0);
        var second = vec4(0.0);
        for (var k = lane; k < length; k += lanes) {
            first += products(starts.x + k, k);
            second += products(starts.y + k, k);
        }
        let sums = vec2(total(first), total(second));
        if lane == 0u && row < params.n {
            store(row, row, sums.x);
        }
        if lane == 0u && row + 1u < params.n {
            store(row + 1u, row + 1u, sums.y);
        }
    }
}
