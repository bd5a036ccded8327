// Blocks of 32 rows of sums a subgroup, for operands that lie in whole vectors of four.
#import matmul_vectors
#import matmul_broadcast

const ROWS = 32u;

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    multiply_broadcast(workgroup, workgroups, lane, member);
}
