// Multiplies two matrices, and writes behind their product how many invocations did: a driver that has subgroups of several sizes
// chooses one for each kernel. The importing file gives SIDE and the matrices.

@group(0) @binding(0) var<storage, read_write> y: array<f32>;

var<workgroup> operands: array<f16, SIDE * SIDE>;

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_size) invocations: u32) {
    for (var i = lane; i < SIDE * SIDE; i += 128u) {
        operands[i] = 1.0h;
    }
    workgroupBarrier();
    let start = 0u;
    let a = coopLoadT<Left>(&operands[start], SIDE);
    let b = coopLoadT<Right>(&operands[start], SIDE);
    var sums: Sums;
    sums = coopMultiplyAdd(a, b, sums);
    coopStoreT(sums, &y[start], SIDE);
    if lane == 0u {
        y[SIDE * SIDE] = f32(invocations);
    }
}
