// `matmul_matrices_16` without the hardware: 32 invocations compute each matrix by themselves. It lets adapters that lack cooperative
// matrices test all the rest, and is never chosen.
enable f16;
#import matmul_operands
#import matmul_matrix

const SIDE = 16u;
// As unlike as they can be: one slice is less than a workgroup brings at a time, the other more.
const DOWN = 1u;
const ACROSS = 4u;
// A row of a slice is 32 halves, and 8 that keep neighbouring rows in different banks: ten vectors of four.
const STRIDE = 10u;

// A matrix of an operand is the place where it begins; of a matrix of sums each of 32 invocations has eight neighbours of a row.
alias Left = u32;
alias Right = u32;
alias Sums = array<f32, 8>;

var<workgroup> a_slice: array<vec4<f16>, ROWS * STRIDE>;
var<workgroup> b_slice: array<vec4<f16>, COLUMNS * STRIDE>;
var<workgroup> staged: array<f32, 1024>;

fn put_a(row: u32, quad: u32, four: vec4<f16>) {
    a_slice[row * STRIDE + quad] = four;
}

fn put_b(column: u32, quad: u32, four: vec4<f16>) {
    b_slice[column * STRIDE + quad] = four;
}

var<private> member: u32;

fn left(row: u32, k: u32) -> Left {
    return row * STRIDE + k / 4u;
}

fn right(k: u32, column: u32) -> Right {
    return column * STRIDE + k / 4u;
}

fn product(a: Left, b: Right) -> f32 {
    var sum = 0.0;
    for (var k = 0u; k < 4u; k++) {
        sum += dot(vec4<f32>(a_slice[a + k]), vec4<f32>(b_slice[b + k]));
    }
    return sum;
}

fn multiply_add(a: Left, b: Right, sums: Sums) -> Sums {
    var all = sums;
    for (var i = 0u; i < 8u; i++) {
        all[i] += product(a + member / 2u * STRIDE, b + (member % 2u * 8u + i) * STRIDE);
    }
    return all;
}

fn stage(sums: Sums, subgroup: u32) {
    var all = sums;
    for (var i = 0u; i < 8u; i++) {
        staged[subgroup * SIDE * SIDE + 8u * member + i] = all[i];
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    member = lane % SUBGROUP;
    multiply_matrices(workgroup, workgroups, lane, lane / SUBGROUP, member);
}
