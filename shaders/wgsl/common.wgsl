// What most kernels need.

// The index of a workgroup in a one-dimensional grid that was folded into two dimensions (`kernel::grid`).
fn linear_workgroup(workgroup: vec3<u32>, workgroups: vec3<u32>) -> u32 {
    return workgroup.y * workgroups.x + workgroup.x;
}
