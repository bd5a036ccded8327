// A tile of 32 x 16 a workgroup, for small products of operands that lie in whole vectors: four teams of 32 invocations, each with 4 x 4 of
// the sums, share the terms of every slice, so that sums that nobody cuts are short all the same.
#import matmul_vectors

const DEPTH = 32u;
const TEAM = 32u;
const TEAMS = 4u;

// A slice of a, and behind it one of b; then what all teams but the first summed.
var<workgroup> slices: array<vec4<f32>, 384>;

// Where row `k` of a slice holds a vector. Turned by k, so that those who store a block of four rows meet different banks.
fn a_slot(k: u32, vector: u32) -> u32 {
    return k * 8u + (vector ^ (k / 4u));
}

fn b_slot(k: u32, vector: u32) -> u32 {
    return 256u + k * 4u + (vector ^ (k / 4u % 4u));
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = lane / TEAM;
    let member = lane % TEAM;
    let my_row = member / 4u;
    let my_column = member % 4u;
    // 64 invocations load blocks of 4 x 4 of a, and 32 of b; neighbours along the axis that is dense in memory.
    let loads_a = lane < 64u;
    let loads_b = lane >= 64u && lane < 96u;
    let which = lane % 64u;
    let vectors = select(4u, 8u, loads_a);
    let along_k = select(!B_ALONG_N, A_ALONG_K, loads_a);
    let vector = select(which % vectors, which / (DEPTH / 4u), along_k);
    let load_k = 4u * select(which / vectors, which % (DEPTH / 4u), along_k);
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        let a_lines = a_rows(batch, workgroup.y * 32u + 4u * vector);
        let b_lines = b_columns(batch, workgroup.x * 16u + 4u * vector);
        var next: mat4x4<f32>;
        if loads_a {
            next = a_block(a_lines, load_k);
        } else if loads_b {
            next = b_block(b_lines, load_k);
        }
        var sums: array<vec4<f32>, 4>;
        for (var depth = 0u; depth < params.k; depth += DEPTH) {
            workgroupBarrier();
            if loads_a {
                slices[a_slot(load_k, vector)] = next[0];
                slices[a_slot(load_k + 1u, vector)] = next[1];
                slices[a_slot(load_k + 2u, vector)] = next[2];
                slices[a_slot(load_k + 3u, vector)] = next[3];
            } else if loads_b {
                slices[b_slot(load_k, vector)] = next[0];
                slices[b_slot(load_k + 1u, vector)] = next[1];
                slices[b_slot(load_k + 2u, vector)] = next[2];
                slices[b_slot(load_k + 3u, vector)] = next[3];
            }
            workgroupBarrier();
            if depth + DEPTH < params.k {
                if loads_a {
                    next = a_block(a_lines, depth + DEPTH + load_k);
                } else if loads_b {
                    next = b_block(b_lines, depth + DEPTH + load_k);
                }
            }
            for (var i = 0u; i < DEPTH / TEAMS; i++) {
                let k = team * (DEPTH / TEAMS) + i;
                let rows = slices[a_slot(k, my_row)];
                let columns = slices[b_slot(k, my_column)];
                sums[0] += rows.x * columns;
                sums[1] += rows.y * columns;
                sums[2] += rows.z * columns;
                sums[3] += rows.w * columns;
            }
        }
        workgroupBarrier();
        if team > 0u {
            #repeat LINE 4 while LINE < 4u
                slices[((team - 1u) * 4u + LINE) * TEAM + member] = sums[LINE];
            #end
        }
        workgroupBarrier();
        if team == 0u {
            #repeat LINE 4 while LINE < 4u
                let others = slices[LINE * TEAM + member] + slices[(4u + LINE) * TEAM + member] + slices[(8u + LINE) * TEAM + member];
                store_four(batch, workgroup.y * 32u + 4u * my_row + LINE, workgroup.x * 16u + 4u * my_column, sums[LINE] + others);
            #end
        }
    }
}
