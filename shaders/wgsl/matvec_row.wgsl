// One invocation a row: for adapters that run on the CPU.
#import common
#import matvec_functions

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup, workgroups) * 64u + lane;
    if row >= params.n {
        return;
    }
    let first = params.offset + row * params.k;
    // Four sums, so that one addition need not wait for the last.
    var sums = vec4(0.0);
    var k = 0u;
    for (; k + 4u <= params.k; k += 4u) {
        let at = first + k;
        let words = vec4(element(at), element(at + 1u), element(at + 2u), element(at + 3u));
        sums += words * vec4(x[k], x[k + 1u], x[k + 2u], x[k + 3u]);
    }
    var sum = (sums.x + sums.y) + (sums.z + sums.w);
    for (; k < params.k; k++) {
        sum += element(first + k) * x[k];
    }
    store(row, row, sum);
}
