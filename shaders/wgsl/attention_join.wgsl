// What attention over parts of the keys gives over all of them: parts weighted by e^(their log sum - the log sum of all). An
// element of the output an invocation.
#import common

struct Params { rows: u32, parts: u32, head_dim: u32, batches: u32 }

// [B, parts, rows, D] and [B, parts, rows], where rows are those of all queries and heads.
@group(0) @binding(0) var<storage, read> outputs: array<f32>;
@group(0) @binding(1) var<storage, read> part_log_sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;
@group(0) @binding(3) var<storage, read_write> log_sums: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

const HIDDEN = -1e30;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear_workgroup(workgroup, workgroups) * 64u + lane;
    let row = at / params.head_dim;
    if row >= params.batches * params.rows {
        return;
    }
    let first = row / params.rows * params.parts * params.rows + row % params.rows;
    var most = HIDDEN;
    for (var part = 0u; part < params.parts; part++) {
        most = max(most, part_log_sums[first + part * params.rows]);
    }
    var total = 0.0;
    var sum = 0.0;
    for (var part = 0u; part < params.parts; part++) {
        let index = first + part * params.rows;
        if part_log_sums[index] > HIDDEN {
            let weight = exp(part_log_sums[index] - most);
            total += weight;
            sum += weight * outputs[index * params.head_dim + at % params.head_dim];
        }
    }
    output[at] = select(sum / total, 0.0, total == 0.0);
    if at % params.head_dim == 0u {
        log_sums[row] = select(most + log(total), HIDDEN, total == 0.0);
    }
}
