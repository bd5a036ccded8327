// One invocation an output, all rows in one part: neighbours read neighbours when `inner` is large, and software adapters need no
// barrier.
#import common
#import reduce_functions

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + lane;
    if i >= params.outer * params.inner {
        return;
    }
    let first = i / params.inner * params.length * params.inner + i % params.inner;
    var accumulated = start();
    for (var at = 0u; at < params.length; at++) {
        accumulated = combine(accumulated, Best(x[first + at * params.inner], at));
    }
    store(i, accumulated);
}
