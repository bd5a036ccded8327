// For an adapter that runs on the CPU: a block of 16 x 8 outputs, and no shared memory.
//
// From here the ladder goes on from rung 2. On a software adapter a subgroup is a vector register of the CPU and shared memory is
// ordinary memory: tiles are copied for nothing, and at a barrier the CPU has to switch between all invocations of the workgroup.
// Its own cache does what the tiles did. What still helps are outputs in registers and loads in vectors of four.
//
// A block of 4 of k by 4 columns of b, times one of 4 rows by 4 of k of a, is a product of two 4 x 4 matrices. Two blocks of b
// and four of a make eight products. k and n are multiples of 4; past the edges the last rows and columns are computed again,
// and not written.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

const INVOCATIONS = 32u;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = workgroup.y * 16u;
    let column = (workgroup.x * INVOCATIONS * 2u + lane) * 4u;
    let column_right = column + INVOCATIONS * 4u;
    // Eight blocks of four rows, named and not indexed, so that they stay in registers.
    var left_0: mat4x4<f32>;
    var left_4: mat4x4<f32>;
    var left_8: mat4x4<f32>;
    var left_12: mat4x4<f32>;
    var right_0: mat4x4<f32>;
    var right_4: mat4x4<f32>;
    var right_8: mat4x4<f32>;
    var right_12: mat4x4<f32>;
    for (var k = 0u; k < params.k; k += 4u) {
        let b_left = load_b(k, column);
        let b_right = load_b(k, column_right);
        let a_0 = load_a(row, k);
        left_0 += b_left * a_0;
        right_0 += b_right * a_0;
        let a_4 = load_a(row + 4u, k);
        left_4 += b_left * a_4;
        right_4 += b_right * a_4;
        let a_8 = load_a(row + 8u, k);
        left_8 += b_left * a_8;
        right_8 += b_right * a_8;
        let a_12 = load_a(row + 12u, k);
        left_12 += b_left * a_12;
        right_12 += b_right * a_12;
    }
    store(row, column, left_0);
    store(row + 4u, column, left_4);
    store(row + 8u, column, left_8);
    store(row + 12u, column, left_12);
    store(row, column_right, right_0);
    store(row + 4u, column_right, right_4);
    store(row + 8u, column_right, right_8);
    store(row + 12u, column_right, right_12);
}

// Four rows of a, a vector each.
fn load_a(row: u32, k: u32) -> mat4x4<f32> {
    let at = (min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.m - 1u)) * params.k + k) / 4u;
    return mat4x4(a[at.x], a[at.y], a[at.z], a[at.w]);
}

fn load_b(k: u32, column: u32) -> mat4x4<f32> {
    let at = (k * params.n + min(column, params.n - 4u)) / 4u;
    let next = params.n / 4u;
    return mat4x4(b[at], b[at + next], b[at + 2u * next], b[at + 3u * next]);
}

fn store(row: u32, column: u32, block: mat4x4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if row + i < params.m && column < params.n {
            y[((row + i) * params.n + column) / 4u] = block[i];
        }
    }
}
