// parts [rows / PART, width]: g (x - mean) rate summed over each PART of the rows.
#import common

struct Params { rows: u32, width: u32, centered: u32, biased: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> g: array<Element>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read_write> parts: array<Element>;
@group(1) @binding(0) var<uniform> params: Params;

override PART: u32 = 1u;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = linear_workgroup(workgroup, workgroups) * 64u + lane;
    let width = params.width / WIDTH;
    if i >= (params.rows + PART - 1u) / PART * width {
        return;
    }
    let start = i / width * PART;
    let end = min(start + PART, params.rows);
    var sum = Element(0.0);
    var at = start * width + i % width;
    for (var row = start; row < end; row++) {
        sum += g[at] * (x[at] - statistics[2u * row]) * statistics[2u * row + 1u];
        at += width;
    }
    parts[i] = sum;
}
