// Matrices of 16 x 16 in workgroup memory, of f16 and of f32, which the invocations of a subgroup multiply together. Their places and the strides of their lines count vectors of four. The importing kernel says how many vectors there are: OPERANDS of
// f16, STAGED of f32.
enable f16;
enable wgpu_cooperative_matrix;

// Invocations of a subgroup, and rows of what it multiplies.
override SUBGROUP: u32 = 32u;
const LINES = 16u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

var<workgroup> operands: array<vec4<f16>, OPERANDS>;
var<workgroup> staged: array<f32, 4u * STAGED>;

struct Invocation {
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) member: u32,
}

var<private> invocation: Invocation;

fn enter(mine: Invocation) {
    invocation = mine;
}

fn put(at: u32, four: vec4<f16>) {
    operands[at] = four;
}

// Strides count elements of the array that is loaded from: vectors (SPV_KHR_cooperative_matrix).
fn left(at: u32, stride: u32) -> Left {
    return coopLoadT<Left>(&operands[at], stride);
}

fn right(at: u32, stride: u32) -> Right {
    return coopLoadT<Right>(&operands[at], stride);
}

// The transpose of what is there.
fn right_turned(at: u32, stride: u32) -> Right {
    return coopLoad<Right>(&operands[at], stride);
}

fn multiply_add(a: Left, b: Right, sums: Sums) -> Sums {
    return coopMultiplyAdd(a, b, sums);
}

fn stage(sums: Sums, at: u32, stride: u32) {
    let start = 4u * at;
    let elements = 4u * stride;
    coopStoreT(sums, &staged[start], elements);
}

fn unstage(at: u32, stride: u32) -> Sums {
    let start = 4u * at;
    let elements = 4u * stride;
    return coopLoadT<Sums>(&staged[start], elements);
}
