// Eight sums of products of matrices a subgroup, whose operands stay where they are, none waiting for another: matrix units at
// their fastest. Four subgroups a workgroup. The importing file gives SIDE and the matrices.

struct Params { matrices: u32, rounds: u32, side: u32 }

// Invocations of a subgroup.
override SUBGROUP: u32 = 32u;
override WORKGROUP = 4u * SUBGROUP;

const ELEMENTS = SIDE * SIDE;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

// The left operand and eight right ones.
var<workgroup> operands: array<f16, 9u * ELEMENTS>;

fn right(number: u32) -> Right {
    let at = number * ELEMENTS;
    return coopLoadT<Right>(&operands[at], SIDE);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    for (var i = lane; i < 9u * ELEMENTS; i += WORKGROUP) {
        operands[i] = f16(x[i]);
    }
    workgroupBarrier();
    let start = 0u;
    let a = coopLoadT<Left>(&operands[start], SIDE);
    let b0 = right(1u);
    let b1 = right(2u);
    let b2 = right(3u);
    let b3 = right(4u);
    let b4 = right(5u);
    let b5 = right(6u);
    let b6 = right(7u);
    let b7 = right(8u);
    var s0: Sums;
    var s1: Sums;
    var s2: Sums;
    var s3: Sums;
    var s4: Sums;
    var s5: Sums;
    var s6: Sums;
    var s7: Sums;
    for (var round = 0u; round < params.rounds; round++) {
        s0 = coopMultiplyAdd(a, b0, s0);
        s1 = coopMultiplyAdd(a, b1, s1);
        s2 = coopMultiplyAdd(a, b2, s2);
        s3 = coopMultiplyAdd(a, b3, s3);
        s4 = coopMultiplyAdd(a, b4, s4);
        s5 = coopMultiplyAdd(a, b5, s5);
        s6 = coopMultiplyAdd(a, b6, s6);
        s7 = coopMultiplyAdd(a, b7, s7);
    }
    let sums = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;
    let at = (linear_workgroup(workgroup, workgroups) * 4u + subgroup) * ELEMENTS;
    coopStoreT(sums, &y[at], SIDE);
}
