// A tile of ROWS x COLUMNS a workgroup of four subgroups, each with DOWN x ACROSS matrices of SIDE x SIDE, which its invocations
// compute together. Slices of 32 columns of a and 32 rows of b pass through shared memory, while the next ones are on their way into
// registers. The importing file gives DOWN and ACROSS, of at most 4, SIDE, the matrices and what moves them. All that lies in
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

// Keeps four rows of a block of a, or columns of one of b, along k.
fn keep_a(row: u32, quad: u32, lines: Block) {
    put_a(row, quad, lines[0]);
    put_a(row + 1u, quad, lines[1]);
    put_a(row + 2u, quad, lines[2]);
    put_a(row + 3u, quad, lines[3]);
}

fn keep_b(column: u32, quad: u32, lines: Block) {
    put_b(column, quad, lines[0]);
    put_b(column + 1u, quad, lines[1]);
    put_b(column + 2u, quad, lines[2]);
    put_b(column + 3u, quad, lines[3]);
}

// Writes one matrix of the sums, by way of shared memory: only there have its elements known places.
fn finish(sums: Sums, batch: u32, row: u32, column: u32, subgroup: u32, member: u32) {
    stage(sums, subgroup);
    workgroupBarrier();
    for (var vector = member; vector < SIDE * SIDE / 4u; vector += SUBGROUP) {
        let at = subgroup * SIDE * SIDE + 4u * vector;
        let four = vec4(staged[at], staged[at + 1u], staged[at + 2u], staged[at + 3u]);
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
    for (var batch = workgroup.z; batch < params.outer * params.inner; batch += workgroups.z) {
        var a_starts: array<vec4<u32>, 4>;
        var b_starts: array<vec4<u32>, 4>;
        var next_a: array<Block, 4>;
        var next_b: array<Block, 4>;
        #repeat PASS 4 while PASS * SPAN < ROWS
            a_starts[PASS] = a_rows(batch, tile_row + PASS * SPAN + line);
            next_a[PASS] = transpose(a_block(a_starts[PASS], 4u * quad));
        #end
        #repeat PASS 4 while PASS * SPAN < COLUMNS
            b_starts[PASS] = b_columns(batch, tile_column + PASS * SPAN + line);
            next_b[PASS] = transpose(b_block(b_starts[PASS], 4u * quad));
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
                // One operand at a time: those of both on their way at once take registers that large tiles do not have.
                if goes_on & (k == 0u) {
                    #repeat PASS 4 while PASS * SPAN < ROWS
                        next_a[PASS] = transpose(a_block(a_starts[PASS], next_k));
                    #end
                }
                if goes_on & (k == SIDE) {
                    #repeat PASS 4 while PASS * SPAN < COLUMNS
                        next_b[PASS] = transpose(b_block(b_starts[PASS], next_k));
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
            finish(sums[AT], batch, row, tile_column + my_column + AT % ACROSS * SIDE, subgroup, member);
        #end
    }
}
