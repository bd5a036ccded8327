// Teams of any size that join through workgroup memory. A team of one needs no barrier.

struct Invocation {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
}

// Which lane of which of the workgroup's teams an invocation is.
struct Local { lane: u32, row: u32 }

fn local_of(invocation: Invocation) -> Local {
    return Local(invocation.index % LANES, invocation.index / LANES);
}

var<workgroup> team_values: array<f32, 256>;
var<workgroup> team_indices: array<u32, 256>;

// The sum over a team, in a fixed order.
fn team_sum(value: f32, local: Local) -> f32 {
    return joined(value, local, true);
}

fn team_max(value: f32, local: Local) -> f32 {
    return joined(value, local, false);
}

fn joined(value: f32, local: Local, adds: bool) -> f32 {
    if LANES == 1u {
        return value;
    }
    let at = local.row * LANES + local.lane;
    workgroupBarrier();
    team_values[at] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local.lane < half {
            let other = team_values[at + half];
            team_values[at] = select(max(team_values[at], other), team_values[at] + other, adds);
        }
    }
    workgroupBarrier();
    return team_values[local.row * LANES];
}

// The least of whole numbers over a team.
fn team_least(value: u32, local: Local) -> u32 {
    if LANES == 1u {
        return value;
    }
    let at = local.row * LANES + local.lane;
    workgroupBarrier();
    team_indices[at] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local.lane < half {
            team_indices[at] = min(team_indices[at], team_indices[at + half]);
        }
    }
    workgroupBarrier();
    return team_indices[local.row * LANES];
}
