// A workgroup for COLUMNS outputs, whose invocations take their rows in turns: for few columns of many rows, on devices whose barriers
// are cheap.
#import common
#import reduce_functions

// A power of two.
override COLUMNS: u32 = 32u;

const INVOCATIONS = 256u;

var<workgroup> partial: array<Best, INVOCATIONS>;

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let parts = max((params.length + params.part - 1u) / params.part, 1u);
    let i = linear_workgroup(workgroup, workgroups) * COLUMNS + index % COLUMNS;
    let is_inside = i < params.outer * parts * params.inner;
    var accumulated = start();
    if is_inside {
        let row = i / params.inner;
        let first = row / parts * params.length * params.inner + i % params.inner;
        let begin = row % parts * params.part;
        let end = min(begin + params.part, params.length);
        for (var at = begin + index / COLUMNS; at < end; at += INVOCATIONS / COLUMNS) {
            accumulated = combine(accumulated, Best(x[first + at * params.inner], at));
        }
    }
    partial[index] = accumulated;
    for (var half = INVOCATIONS / 2u; half >= COLUMNS; half /= 2u) {
        workgroupBarrier();
        if index < half {
            partial[index] = combine(partial[index], partial[index + half]);
        }
    }
    if index < COLUMNS && is_inside {
        store(i, partial[index]);
    }
}
