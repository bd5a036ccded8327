// A tile of TILE x TILE a workgroup of 128: four subgroups, each with 4 x 4 matrices of SIDE x SIDE, which its 32 invocations
// compute together. Slices of 32 columns of a and 32 rows of b pass through shared memory as f16, while the next ones are on
// their way into registers. The importing file gives SIDE, the matrices and what moves them.

const TILE = 8u * SIDE;
const DEPTH = 32u;

// The largest magnitude of the operand that `params.scaled` names (1 is a, 2 is b), as the bits of an f32.
@group(0) @binding(5) var<storage, read> peak: array<u32>;

// The biased exponent of the power of two that brings the peak between 2^14 and 2^15: f16 ends just below 2^16, and rounds to
// zero what is below 2^-25.
fn scale_exponent() -> u32 {
    let exponent = min(peak[0] >> 23u, 254u);
    return select(clamp(268u - exponent, 1u, 253u), 127u, params.scaled == 0u || exponent == 0u);
}

// Four rows of a block of a, or columns of one of b, along k.
struct Lines { first: vec4<f16>, second: vec4<f16>, third: vec4<f16>, fourth: vec4<f16> }

fn narrowed(block: mat4x4<f32>, scale: f32) -> Lines {
    let lines = transpose(block) * scale;
    return Lines(vec4<f16>(lines[0]), vec4<f16>(lines[1]), vec4<f16>(lines[2]), vec4<f16>(lines[3]));
}

fn keep_a(row: u32, quad: u32, lines: Lines) {
    put_a(row, quad, lines.first);
    put_a(row + 1u, quad, lines.second);
    put_a(row + 2u, quad, lines.third);
    put_a(row + 3u, quad, lines.fourth);
}

fn keep_b(column: u32, quad: u32, lines: Lines) {
    put_b(column, quad, lines.first);
    put_b(column + 1u, quad, lines.second);
    put_b(column + 2u, quad, lines.third);
    put_b(column + 3u, quad, lines.fourth);
}

// Writes one matrix of the sums, by way of shared memory: only there have its elements known places.
fn finish(sums: Sums, batch: u32, row: u32, column: u32, scale: f32, subgroup: u32, member: u32) {
    stage(sums, subgroup);
    workgroupBarrier();
    for (var vector = member; vector < SIDE * SIDE / 4u; vector += 32u) {
        let at = subgroup * SIDE * SIDE + 4u * vector;
        let four = scale * vec4(staged[at], staged[at + 1u], staged[at + 2u], staged[at + 3u]);
        store_four(batch, row + 4u * vector / SIDE, column + 4u * vector % SIDE, four);
    }
    workgroupBarrier();
}

fn multiply_matrices(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32, subgroup: u32, member: u32) {
    let tile_row = workgroup.y * TILE;
    let tile_column = workgroup.x * TILE;
    let my_row = subgroup / 2u * 4u * SIDE;
    let my_column = subgroup % 2u * 4u * SIDE;
    // Blocks of 4 x 4, eight along k: a row of a slice is 64 bytes of halves, and every bank is met once.
    let quad = lane % 8u;
    let line = lane / 8u * 4u;
    let exponent = scale_exponent();
    let up = bitcast<f32>(exponent << 23u);
    let down = bitcast<f32>((254u - exponent) << 23u);
    let a_scale = select(1.0, up, params.scaled == 1u);
    let b_scale = select(1.0, up, params.scaled == 2u);
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        let a_low = a_rows(batch, tile_row + line);
        let b_low = b_columns(batch, tile_column + line);
        let a_high = a_rows(batch, tile_row + 64u + line);
        let b_high = b_columns(batch, tile_column + 64u + line);
        var next_a_low = narrowed(a_block(a_low, 4u * quad), a_scale);
        var next_b_low = narrowed(b_block(b_low, 4u * quad), b_scale);
        var next_a_high: Lines;
        var next_b_high: Lines;
        if TILE == 128u {
            next_a_high = narrowed(a_block(a_high, 4u * quad), a_scale);
            next_b_high = narrowed(b_block(b_high, 4u * quad), b_scale);
        }
        var sums: array<Sums, 16>;
        for (var depth = 0u; depth < params.k; depth += DEPTH) {
            workgroupBarrier();
            keep_a(line, quad, next_a_low);
            keep_b(line, quad, next_b_low);
            if TILE == 128u {
                keep_a(line + 64u, quad, next_a_high);
                keep_b(line + 64u, quad, next_b_high);
            }
            workgroupBarrier();
            if depth + DEPTH < params.k {
                let k = depth + DEPTH + 4u * quad;
                next_a_low = narrowed(a_block(a_low, k), a_scale);
                next_b_low = narrowed(b_block(b_low, k), b_scale);
                if TILE == 128u {
                    next_a_high = narrowed(a_block(a_high, k), a_scale);
                    next_b_high = narrowed(b_block(b_high, k), b_scale);
                }
            }
            for (var k = 0u; k < DEPTH; k += SIDE) {
                let b0 = right(k, my_column);
                let b1 = right(k, my_column + SIDE);
                let b2 = right(k, my_column + 2u * SIDE);
                let b3 = right(k, my_column + 3u * SIDE);
                let a0 = left(my_row, k);
                sums[0] = multiply_add(a0, b0, sums[0]);
                sums[1] = multiply_add(a0, b1, sums[1]);
                sums[2] = multiply_add(a0, b2, sums[2]);
                sums[3] = multiply_add(a0, b3, sums[3]);
                let a1 = left(my_row + SIDE, k);
                sums[4] = multiply_add(a1, b0, sums[4]);
                sums[5] = multiply_add(a1, b1, sums[5]);
                sums[6] = multiply_add(a1, b2, sums[6]);
                sums[7] = multiply_add(a1, b3, sums[7]);
                let a2 = left(my_row + 2u * SIDE, k);
                sums[8] = multiply_add(a2, b0, sums[8]);
                sums[9] = multiply_add(a2, b1, sums[9]);
                sums[10] = multiply_add(a2, b2, sums[10]);
                sums[11] = multiply_add(a2, b3, sums[11]);
                let a3 = left(my_row + 3u * SIDE, k);
                sums[12] = multiply_add(a3, b0, sums[12]);
                sums[13] = multiply_add(a3, b1, sums[13]);
                sums[14] = multiply_add(a3, b2, sums[14]);
                sums[15] = multiply_add(a3, b3, sums[15]);
            }
        }
        let row = tile_row + my_row;
        let column = tile_column + my_column;
        finish(sums[0], batch, row, column, down, subgroup, member);
        finish(sums[1], batch, row, column + SIDE, down, subgroup, member);
        finish(sums[2], batch, row, column + 2u * SIDE, down, subgroup, member);
        finish(sums[3], batch, row, column + 3u * SIDE, down, subgroup, member);
        finish(sums[4], batch, row + SIDE, column, down, subgroup, member);
        finish(sums[5], batch, row + SIDE, column + SIDE, down, subgroup, member);
        finish(sums[6], batch, row + SIDE, column + 2u * SIDE, down, subgroup, member);
        finish(sums[7], batch, row + SIDE, column + 3u * SIDE, down, subgroup, member);
        finish(sums[8], batch, row + 2u * SIDE, column, down, subgroup, member);
        finish(sums[9], batch, row + 2u * SIDE, column + SIDE, down, subgroup, member);
        finish(sums[10], batch, row + 2u * SIDE, column + 2u * SIDE, down, subgroup, member);
        finish(sums[11], batch, row + 2u * SIDE, column + 3u * SIDE, down, subgroup, member);
        finish(sums[12], batch, row + 3u * SIDE, column, down, subgroup, member);
        finish(sums[13], batch, row + 3u * SIDE, column + SIDE, down, subgroup, member);
        finish(sums[14], batch, row + 3u * SIDE, column + 2u * SIDE, down, subgroup, member);
        finish(sums[15], batch, row + 3u * SIDE, column + 3u * SIDE, down, subgroup, member);
    }
}
