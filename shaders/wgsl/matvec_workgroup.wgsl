// One workgroup a row, whose invocations read neighbouring words.
#import common
#import matvec_functions

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup, workgroups);
    var sum = 0.0;
    if row < params.n {
        let first = params.offset + row * params.k;
        if DTYPE == 0u {
            for (var k = lane; k < params.k; k += 64u) {
                sum += element(first + k) * x[k];
            }
        } else {
            // A word holds two elements, and a row may begin in the middle of one.
            let end = first + params.k;
            for (var word = first / 2u + lane; word * 2u < end; word += 64u) {
                let low = word * 2u;
                let both = weight[word];
                if low >= first {
                    sum += widen_low(DTYPE, both) * x[low - first];
                }
                if low + 1u < end {
                    sum += widen_high(DTYPE, both) * x[low + 1u - first];
                }
            }
        }
    }
    partial[lane] = sum;
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u && row < params.n {
        store(row, row, partial[0]);
    }
}
