// One output an invocation.
//
// y = a b for row-major a [m, k] and b [k, n]: each invocation walks along a row of a and down a column of b.
//
// What it costs: two loads for every multiply-add, and memory is far slower than arithmetic. Worse, the neighbours in x have
// neighbouring rows, whose elements of a lie k apart in memory: each load of a subgroup touches as many cache lines as it has
// invocations, and so does its store.

struct Params { m: u32, n: u32, k: u32 }

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(16, 16)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    let column = id.y;
    if row >= params.m || column >= params.n {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < params.k; k++) {
        sum += a[row * params.k + k] * b[k * params.n + column];
    }
    y[row * params.n + column] = sum;
}
