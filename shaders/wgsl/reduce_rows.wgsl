// One workgroup an output: for long rows with inner = 1, on devices whose barriers are cheap.
#import common
#import reduce_functions

var<workgroup> partial: array<Best, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup, workgroups);
    var accumulated = start();
    if row < params.outer {
        for (var at = lane; at < params.length; at += 256u) {
            accumulated = combine(accumulated, Best(x[row * params.length + at], at));
        }
    }
    partial[lane] = accumulated;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] = combine(partial[lane], partial[lane + half]);
        }
    }
    if lane == 0u && row < params.outer {
        store(row, partial[0]);
    }
}
