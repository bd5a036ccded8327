// Products of 16 x 16 matrices of f16, summed in f32 by the hardware of a subgroup. The importing file gives DOWN and ACROSS.
enable f16;
enable wgpu_cooperative_matrix;
#import matmul_operands
#import matmul_units

const SIDE = 16u;
// A row of a slice is 32 halves, and 8 that keep neighbouring rows in different banks: ten vectors of four.
const STRIDE = 10u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

var<workgroup> a_slice: array<vec4<f16>, ROWS * STRIDE>;
var<workgroup> b_slice: array<vec4<f16>, COLUMNS * STRIDE>;

fn put_a(row: u32, quad: u32, four: vec4<f16>) {
    a_slice[row * STRIDE + quad] = four;
}

fn put_b(column: u32, quad: u32, four: vec4<f16>) {
    b_slice[column * STRIDE + quad] = four;
}

// Strides count elements of the array that is loaded from: vectors (SPV_KHR_cooperative_matrix).
fn left(row: u32, k: u32) -> Left {
    let at = row * STRIDE + k / 4u;
    return coopLoadT<Left>(&a_slice[at], STRIDE);
}

fn right(k: u32, column: u32) -> Right {
    let at = column * STRIDE + k / 4u;
    return coopLoad<Right>(&b_slice[at], STRIDE);
}
