// `matrices_16` without the hardware: 32 invocations compute each matrix by themselves. It lets adapters that lack cooperative
// matrices test all the rest, and is never chosen.
enable f16;

// Drivers on the CPU compile a matrix's product to hundreds of instructions, and so many of them in a row for minutes.
#loops

const SUBGROUP = 32u;
const LINES = 16u;

// Each invocation has half a row of a matrix of sums, and the row of the left operand that it needs. A right operand is where it
// begins, and the steps from a row and from a column to the next, in elements.
alias Left = array<vec4<f32>, 4>;
struct Right { at: u32, down: u32, across: u32 }
alias Sums = array<vec4<f32>, 2>;

override OPERAND_ELEMENTS = 4u * OPERANDS;

var<workgroup> operands: array<f16, OPERAND_ELEMENTS>;
var<workgroup> staged: array<f32, 4u * STAGED>;

struct Invocation { @builtin(local_invocation_index) lane: u32 }
struct Place { lane: u32, subgroup: u32, member: u32 }

var<private> invocation: Place;

fn enter(mine: Invocation) {
    invocation = Place(mine.lane, mine.lane / SUBGROUP, mine.lane % SUBGROUP);
}

fn put(at: u32, four: vec4<f16>) {
    operands[4u * at] = four.x;
    operands[4u * at + 1u] = four.y;
    operands[4u * at + 2u] = four.z;
    operands[4u * at + 3u] = four.w;
}

fn operand_four(at: u32, step: u32) -> vec4<f32> {
    return vec4<f32>(vec4(operands[at], operands[at + step], operands[at + 2u * step], operands[at + 3u * step]));
}

fn left(at: u32, stride: u32) -> Left {
    let row = 4u * (at + invocation.member / 2u * stride);
    return Left(operand_four(row, 1u), operand_four(row + 4u, 1u), operand_four(row + 8u, 1u), operand_four(row + 12u, 1u));
}

fn right(at: u32, stride: u32) -> Right {
    return Right(4u * at, 4u * stride, 1u);
}

// The transpose of what is there.
fn right_turned(at: u32, stride: u32) -> Right {
    return Right(4u * at, 1u, 4u * stride);
}

fn multiply_add(a: Left, b: Right, sums: Sums) -> Sums {
    let row = a;
    var all = sums;
    for (var k = 0u; k < 16u; k++) {
        let at = b.at + k * b.down + invocation.member % 2u * 8u * b.across;
        all[0] += row[k / 4u][k % 4u] * operand_four(at, b.across);
        all[1] += row[k / 4u][k % 4u] * operand_four(at + 4u * b.across, b.across);
    }
    return all;
}

// Where this invocation's half of a row lies.
fn place(at: u32, stride: u32) -> u32 {
    return 4u * (at + invocation.member / 2u * stride + invocation.member % 2u * 2u);
}

fn stage(sums: Sums, at: u32, stride: u32) {
    var all = sums;
    for (var i = 0u; i < 8u; i++) {
        staged[place(at, stride) + i] = all[i / 4u][i % 4u];
    }
}

fn unstage(at: u32, stride: u32) -> Sums {
    var all: Sums;
    for (var i = 0u; i < 8u; i++) {
        all[i / 4u][i % 4u] = staged[place(at, stride) + i];
    }
    return all;
}
