// `matrices_16` on hardware for 8 x 8: what a subgroup multiplies has 8 rows, in two matrices, by 16 x 16, in four. Operands lie
// element by element.
enable f16;
enable wgpu_cooperative_matrix;

// Drivers on the CPU compile a matrix's product to hundreds of instructions, and so many of them in a row for minutes.
#loops

// Invocations of a subgroup, and rows of what it multiplies.
override SUBGROUP: u32 = 32u;
const LINES = 8u;

alias Left = array<coop_mat8x8<f16, A>, 2>;
alias Right = array<coop_mat8x8<f16, B>, 4>;
alias Sums = array<coop_mat8x8<f32, C>, 2>;

override OPERAND_ELEMENTS = 4u * OPERANDS;

var<workgroup> operands: array<f16, OPERAND_ELEMENTS>;
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
    operands[4u * at] = four.x;
    operands[4u * at + 1u] = four.y;
    operands[4u * at + 2u] = four.z;
    operands[4u * at + 3u] = four.w;
}

// Where the four quarters begin, row by row: the first two are those of a matrix of LINES rows.
fn quarters(at: u32, stride: u32) -> vec4<u32> {
    return 4u * (vec4(at) + vec4(0u, 2u, 8u * stride, 8u * stride + 2u));
}

fn left(at: u32, stride: u32) -> Left {
    let starts = quarters(at, stride);
    let elements = 4u * stride;
    return Left(
        coopLoadT<coop_mat8x8<f16, A>>(&operands[starts.x], elements),
        coopLoadT<coop_mat8x8<f16, A>>(&operands[starts.y], elements),
    );
}

fn right(at: u32, stride: u32) -> Right {
    let starts = quarters(at, stride);
    let elements = 4u * stride;
    return Right(
        coopLoadT<coop_mat8x8<f16, B>>(&operands[starts.x], elements),
        coopLoadT<coop_mat8x8<f16, B>>(&operands[starts.y], elements),
        coopLoadT<coop_mat8x8<f16, B>>(&operands[starts.z], elements),
        coopLoadT<coop_mat8x8<f16, B>>(&operands[starts.w], elements),
    );
}

// The transpose of what is there.
fn right_turned(at: u32, stride: u32) -> Right {
    let starts = quarters(at, stride).xzyw;
    let elements = 4u * stride;
    return Right(
        coopLoad<coop_mat8x8<f16, B>>(&operands[starts.x], elements),
        coopLoad<coop_mat8x8<f16, B>>(&operands[starts.y], elements),
        coopLoad<coop_mat8x8<f16, B>>(&operands[starts.z], elements),
        coopLoad<coop_mat8x8<f16, B>>(&operands[starts.w], elements),
    );
}

fn multiply_add(a: Left, b: Right, sums: Sums) -> Sums {
    return Sums(
        coopMultiplyAdd(a[1], b[2], coopMultiplyAdd(a[0], b[0], sums[0])),
        coopMultiplyAdd(a[1], b[3], coopMultiplyAdd(a[0], b[1], sums[1])),
    );
}

fn stage_half(sums: coop_mat8x8<f32, C>, at: u32, elements: u32) {
    coopStoreT(sums, &staged[at], elements);
}

fn stage(sums: Sums, at: u32, stride: u32) {
    let starts = quarters(at, stride);
    stage_half(sums[0], starts.x, 4u * stride);
    stage_half(sums[1], starts.y, 4u * stride);
}

fn unstage(at: u32, stride: u32) -> Sums {
    let starts = quarters(at, stride);
    let elements = 4u * stride;
    return Sums(
        coopLoadT<coop_mat8x8<f32, C>>(&staged[starts.x], elements),
        coopLoadT<coop_mat8x8<f32, C>>(&staged[starts.y], elements),
    );
}
