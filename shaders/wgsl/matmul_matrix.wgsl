// A tile of ROWS x COLUMNS a workgroup of four subgroups, each with DOWN x ACROSS matrices of SIDE x SIDE, which its invocations
// compute together. Slices of 32 columns of a and 32 rows of b pass through shared memory as f16, while the next ones are on their
// way into registers. The importing file gives DOWN and ACROSS, of at most 4, SIDE, the matrices and what moves them. All that lies in
// registers is indexed by constants alone: each has its lines (#repeat).

// Invocations of a subgroup.
override SUBGROUP: u32 = 32u;

const ROWS = 2u * DOWN * SIDE;
const COLUMNS = 2u * ACROSS * SIDE;
const DEPTH = 32u;

override WORKGROUP = 4u * SUBGROUP;
// Rows of a slice of a, and columns of one of b, that a workgroup brings at a time: each invocation has a block of 4 x 4, eight are
// along DEPTH.
override SPAN = WORKGROUP / 2u;

// The largest magnitudes of a, where `params.scaled` has its bit 0, and of b, where it has bit 1, as the bits of an f32.
@group(0) @binding(5) var<storage, read> a_peak: array<u32>;
@group(0) @binding(6) var<storage, read> b_peak: array<u32>;

// The biased exponent of the power of two that brings a peak between 2^14 and 2^15: f16 ends just below 2^16, and rounds to
// zero what is below 2^-25. A peak from 2^-6 on and below 2^15 stays, so that most rows do not depend on those beside them.
fn scale_exponent(peak: u32, operand: u32) -> i32 {
    let exponent = i32(peak >> 23u);
    let is_near = (exponent >= 121) & (exponent < 142);
    let stays = (extractBits(params.scaled, operand, 1u) == 0u) | (exponent == 0) | is_near;
    return select(clamp(268 - exponent, 1, 253), 127, stays);
}

fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(exponent) << 23u);
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
fn finish(sums: Sums, batch: u32, row: u32, column: u32, down: vec2<f32>, subgroup: u32, member: u32) {
    stage(sums, subgroup);
    workgroupBarrier();
    for (var vector = member; vector < SIDE * SIDE / 4u; vector += SUBGROUP) {
        let at = subgroup * SIDE * SIDE + 4u * vector;
        let four = down.x * vec4(staged[at], staged[at + 1u], staged[at + 2u], staged[at + 3u]) * down.y;
        store_four(batch, row + 4u * vector / SIDE, column + 4u * vector % SIDE, four);
    }
    workgroupBarrier();
}

fn multiply_matrices(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32, subgroup: u32, member: u32) {
    let tile_row = workgroup.y * ROWS;
    let tile_column = workgroup.x * COLUMNS;
    let my_row = subgroup / 2u * DOWN * SIDE;
    let my_column = subgroup % 2u * ACROSS * SIDE;
    // A row of a slice is 64 bytes of halves, and every bank is met once.
    let quad = lane % 8u;
    let line = lane / 8u * 4u;
    let a_exponent = scale_exponent(a_peak[0], 0u);
    let b_exponent = scale_exponent(b_peak[0], 1u);
    let a_scale = power_of_two(a_exponent);
    let b_scale = power_of_two(b_exponent);
    // Both are undone by two factors as near as can be: one alone may be past what f32 holds.
    let undone = 254 - a_exponent - b_exponent;
    let down = vec2(power_of_two(127 + undone / 2), power_of_two(127 + undone - undone / 2));
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        var a_starts: array<vec4<u32>, 4>;
        var b_starts: array<vec4<u32>, 4>;
        var next_a: array<Lines, 4>;
        var next_b: array<Lines, 4>;
        #repeat PASS 4 while PASS * SPAN < ROWS
            a_starts[PASS] = a_rows(batch, tile_row + PASS * SPAN + line);
            next_a[PASS] = narrowed(a_block(a_starts[PASS], 4u * quad), a_scale);
        #end
        #repeat PASS 4 while PASS * SPAN < COLUMNS
            b_starts[PASS] = b_columns(batch, tile_column + PASS * SPAN + line);
            next_b[PASS] = narrowed(b_block(b_starts[PASS], 4u * quad), b_scale);
        #end
        var sums: array<Sums, 16>;
        for (var depth = 0u; depth < params.k; depth += DEPTH) {
            workgroupBarrier();
            #repeat PASS 4 while (PASS * SPAN < ROWS) & ((SPAN <= ROWS) | (line < ROWS))
                keep_a(PASS * SPAN + line, quad, next_a[PASS]);
            #end
            #repeat PASS 4 while (PASS * SPAN < COLUMNS) & ((SPAN <= COLUMNS) | (line < COLUMNS))
                keep_b(PASS * SPAN + line, quad, next_b[PASS]);
            #end
            workgroupBarrier();
            let next_k = depth + DEPTH + 4u * quad;
            let goes_on = depth + DEPTH < params.k;
            for (var k = 0u; k < DEPTH; k += SIDE) {
                // One operand at a time, since its elements take twice the registers before they are f16.
                if goes_on & (k == 0u) {
                    #repeat PASS 4 while PASS * SPAN < ROWS
                        next_a[PASS] = narrowed(a_block(a_starts[PASS], next_k), a_scale);
                    #end
                }
                if goes_on & (k == SIDE) {
                    #repeat PASS 4 while PASS * SPAN < COLUMNS
                        next_b[PASS] = narrowed(b_block(b_starts[PASS], next_k), b_scale);
                    #end
                }
                var columns: array<Right, 4>;
                #repeat AT 4 while AT < ACROSS
                    columns[AT] = right(k, my_column + AT * SIDE);
                #end
                var rows: Left;
                #repeat AT 16 while AT < DOWN * ACROSS
                    if AT % ACROSS == 0u {
                        rows = left(my_row + AT / ACROSS * SIDE, k);
                    }
                    sums[AT] = multiply_add(rows, columns[AT % ACROSS], sums[AT]);
                #end
            }
        }
        #repeat AT 16 while AT < DOWN * ACROSS
            let row = tile_row + my_row + AT / ACROSS * SIDE;
            finish(sums[AT], batch, row, tile_column + my_column + AT % ACROSS * SIDE, down, subgroup, member);
        #end
    }
}
