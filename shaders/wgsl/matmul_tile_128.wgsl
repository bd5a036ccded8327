// A tile of 128 x 128 a workgroup, 8 x 8 an invocation, for operands that lie in whole vectors.
#import matmul_vectors
#import matmul_tile

const TILE = 128u;
const INVOCATIONS = 256u;

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    multiply_tile(workgroup, workgroups, lane);
}
