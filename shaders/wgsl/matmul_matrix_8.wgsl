// Products of 8 x 8 matrices of f16, summed in f32 by the hardware of a subgroup: tiles of 64 x 64 a workgroup.
enable f16;
enable wgpu_cooperative_matrix;
#import matmul_operands
#import matmul_units

const SIDE = 8u;
const DOWN = 4u;
const ACROSS = 4u;
// A row of a slice is 32 halves, and 8 that keep neighbouring rows in different banks.
const STRIDE = 40u;

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;

var<workgroup> a_slice: array<f16, ROWS * STRIDE>;
var<workgroup> b_slice: array<f16, COLUMNS * STRIDE>;

fn put_a(row: u32, quad: u32, four: vec4<f16>) {
    let at = row * STRIDE + 4u * quad;
    a_slice[at] = four.x;
    a_slice[at + 1u] = four.y;
    a_slice[at + 2u] = four.z;
    a_slice[at + 3u] = four.w;
}

fn put_b(column: u32, quad: u32, four: vec4<f16>) {
    let at = column * STRIDE + 4u * quad;
    b_slice[at] = four.x;
    b_slice[at + 1u] = four.y;
    b_slice[at + 2u] = four.z;
    b_slice[at + 3u] = four.w;
}

fn left(row: u32, k: u32) -> Left {
    let at = row * STRIDE + k;
    return coopLoadT<Left>(&a_slice[at], STRIDE);
}

fn right(k: u32, column: u32) -> Right {
    let at = column * STRIDE + k;
    return coopLoad<Right>(&b_slice[at], STRIDE);
}
