// To table [table_rows, width], whose first row has the index `table_first`, the rows from `first` up to `end` are added, each at its
// index. An invocation owns one column of every BUCKETS-th row of the table and walks through the rows in order, so nothing is added
// twice and the order is always the same.
#import common

struct Params { first: u32, end: u32, width: u32, table_first: u32, table_rows: u32 }

@group(0) @binding(0) var<storage, read> rows: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> table: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

override BUCKETS: u32 = 1u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + lane;
    if i >= params.width * BUCKETS {
        return;
    }
    let column = i % params.width;
    let bucket = i / params.width;
    for (var row = params.first; row < params.end; row++) {
        let index = indices[row] - params.table_first;
        if index % BUCKETS == bucket && index < params.table_rows {
            table[index * params.width + column] += rows[row * params.width + column];
        }
    }
}
