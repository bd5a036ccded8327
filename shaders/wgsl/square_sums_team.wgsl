// sums[start..]: the sum of the squares of each PART of x, one workgroup a sum.
#import vectors
#import team

struct Params { elements: u32, start: u32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

override PART: u32 = 1u;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let part = linear_workgroup(invocation.workgroup, invocation.workgroups);
    let start = part * PART;
    let end = min(start + PART, params.elements);
    var squares = Element(0.0);
    for (var i = start / 4u + local.lane; 4u * i < end; i += LANES) {
        // What is past the end counts nothing, whatever it is.
        squares += select(Element(0.0), x[i] * x[i], indices_at(i) < Indices(end));
    }
    let sum = team_sum(total(squares), local);
    if local.lane == 0u && part < (params.elements + PART - 1u) / PART {
        sums[params.start + part] = sum;
    }
}
