// A tile of 64 x 64 a workgroup, 4 x 4 an invocation, for operands that lie in whole vectors.
#import matmul_vectors
#import matmul_tile

const TILE = 64u;
const INVOCATIONS = 256u;

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    multiply_tile(workgroup, workgroups, lane);
}
