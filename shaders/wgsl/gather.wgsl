// y [rows, width]: the rows of a table at the indices.
#import common
#import storage

struct Params { rows: u32, width: u32, table_rows: u32 }

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

override DTYPE: u32 = 0u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + lane;
    if i >= params.rows * params.width {
        return;
    }
    // An index past the table must not read past it.
    let row = min(indices[i / params.width], params.table_rows - 1u);
    let at = row * params.width + i % params.width;
    if DTYPE == 0u {
        y[i] = bitcast<f32>(table[at]);
    } else if (at & 1u) == 0u {
        y[i] = widen_low(DTYPE, table[at >> 1u]);
    } else {
        y[i] = widen_high(DTYPE, table[at >> 1u]);
    }
}
