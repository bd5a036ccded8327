// What products by matrix units of any SIDE share. The importing file gives the matrices.
#import matmul_matrix

var<workgroup> staged: array<f32, 4u * SIDE * SIDE>;

fn multiply_add(a: Left, b: Right, sums: Sums) -> Sums {
    return coopMultiplyAdd(a, b, sums);
}

fn stage(sums: Sums, subgroup: u32) {
    let at = subgroup * SIDE * SIDE;
    coopStoreT(sums, &staged[at], SIDE);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    multiply_matrices(workgroup, workgroups, lane, subgroup, member);
}
