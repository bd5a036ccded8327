// y [rows, width]: the rows of a table at the indices, four elements an invocation.
#import common
#import storage

struct Params { rows: u32, width: u32, table_rows: u32 }

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

override DTYPE: u32 = 0u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = 4u * (linear_workgroup(workgroup, workgroups) * 64u + lane);
    if first >= params.rows * params.width {
        return;
    }
    if params.width % 4u == 0u {
        let at = source(first);
        y[first / 4u] = vec4(element(at), element(at + 1u), element(at + 2u), element(at + 3u));
    } else {
        y[first / 4u] = vec4(
            element(source(first)), element(source(first + 1u)), element(source(first + 2u)), element(source(first + 3u))
        );
    }
}

// Where an element of y comes from. An index past the table must not read past it.
fn source(at: u32) -> u32 {
    let row = min(indices[min(at / params.width, params.rows - 1u)], params.table_rows - 1u);
    return row * params.width + at % params.width;
}

fn element(at: u32) -> f32 {
    if DTYPE == 0u {
        return bitcast<f32>(table[at]);
    }
    let word = table[at >> 1u];
    return select(widen_high(DTYPE, word), widen_low(DTYPE, word), (at & 1u) == 0u);
}
