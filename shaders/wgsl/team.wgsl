// Rows by teams: LANES invocations share a row, in a workgroup of ROWS rows. A team of one needs no barrier.
#import common

override LANES: u32 = 1u;
override ROWS: u32 = 64u;

var<workgroup> team_values: array<f32, 256>;

// The sum over a team, in a fixed order. `local` is an invocation's (lane, row) in its workgroup.
fn team_sum(value: f32, local: vec2<u32>) -> f32 {
    if LANES == 1u {
        return value;
    }
    let at = local.y * LANES + local.x;
    workgroupBarrier();
    team_values[at] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local.x < half {
            team_values[at] += team_values[at + half];
        }
    }
    workgroupBarrier();
    return team_values[local.y * LANES];
}

fn team_max(value: f32, local: vec2<u32>) -> f32 {
    if LANES == 1u {
        return value;
    }
    let at = local.y * LANES + local.x;
    workgroupBarrier();
    team_values[at] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local.x < half {
            team_values[at] = max(team_values[at], team_values[at + half]);
        }
    }
    workgroupBarrier();
    return team_values[local.y * LANES];
}

// The vectors of a row that an invocation goes through, in steps of LANES; none if the row is past the end.
struct Walk { row: u32, first: u32, end: u32 }

fn walk_of(workgroup: vec3<u32>, workgroups: vec3<u32>, local: vec2<u32>, rows: u32, width: u32) -> Walk {
    let row = linear_workgroup(workgroup, workgroups) * ROWS + local.y;
    let start = row * (width / WIDTH);
    return Walk(row, start + local.x, select(start, start + width / WIDTH, row < rows));
}
