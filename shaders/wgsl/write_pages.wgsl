// x [B, T, row], the last T tokens of B rows, into the pages y [P, page_size, row] that the rows' tables [B, W] name, in place.
#import common

struct Params { elements: u32, tokens: u32, row: u32, page_size: u32, pages: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 256u + lane;
    if i >= params.elements {
        return;
    }
    let batch = i / params.row / params.tokens;
    // Past the token, so that those before the row are 0.
    let next = max(lengths[batch] + i / params.row % params.tokens + 1u, params.tokens) - params.tokens;
    if next == 0u || next > params.pages * params.page_size {
        return;
    }
    let page = table[batch * params.pages + (next - 1u) / params.page_size];
    y[(page * params.page_size + (next - 1u) % params.page_size) * params.row + i % params.row] = x[i];
}
