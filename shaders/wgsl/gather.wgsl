// y [rows, width]: the rows of a table at the indices, four elements an invocation. With UPDATE, rows that the table does not have
// stay as they were: it is a part of one, from the row `first` on.
#import common
#import storage

struct Params { rows: u32, width: u32, table_rows: u32, first: u32 }

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

override DTYPE: u32 = 0u;
override UPDATE: bool = false;

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
    var four: vec4<f32>;
    if params.width % 4u == 0u {
        let at = source(first);
        four = vec4(element(at), element(at + 1u), element(at + 2u), element(at + 3u));
    } else {
        four = vec4(element(source(first)), element(source(first + 1u)), element(source(first + 2u)), element(source(first + 3u)));
    }
    if UPDATE {
        let rows = vec4(row_of(first), row_of(first + 1u), row_of(first + 2u), row_of(first + 3u));
        four = select(y[first / 4u], four, rows < vec4(params.table_rows));
    }
    y[first / 4u] = four;
}

// The row of the table that an element of y comes from; past its end if the table does not have it.
fn row_of(at: u32) -> u32 {
    return indices[min(at / params.width, params.rows - 1u)] - params.first;
}

// Where an element of y comes from: of a row that the table does not have, from its last.
fn source(at: u32) -> u32 {
    return min(row_of(at), params.table_rows - 1u) * params.width + at % params.width;
}

fn element(at: u32) -> f32 {
    if DTYPE == 0u {
        return bitcast<f32>(table[at]);
    }
    let word = table[at >> 1u];
    return select(widen_high(DTYPE, word), widen_low(DTYPE, word), (at & 1u) == 0u);
}
