// Teams of whole subgroups, each of which joins by itself before the team does. Subgroups may have any number of invocations from 4
// on by which LANES can be divided.

struct Invocation {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) member: u32,
}

// Which lane of which of the workgroup's teams an invocation is, and its subgroup beside those of its team.
struct Local { lane: u32, row: u32, member: u32, subgroup: u32, first: u32, end: u32 }

fn local_of(invocation: Invocation) -> Local {
    let index = invocation.subgroup * invocation.size + invocation.member;
    let row = index / LANES;
    let subgroups = LANES / invocation.size;
    return Local(index % LANES, row, invocation.member, invocation.subgroup, row * subgroups, (row + 1u) * subgroups);
}

var<workgroup> subgroup_values: array<f32, 64>;
var<workgroup> subgroup_indices: array<u32, 64>;

// The sum over a team, in a fixed order.
fn team_sum(value: f32, local: Local) -> f32 {
    hand_over(subgroupAdd(value), local);
    var sum = 0.0;
    for (var subgroup = local.first; subgroup < local.end; subgroup++) {
        sum += subgroup_values[subgroup];
    }
    return sum;
}

fn team_max(value: f32, local: Local) -> f32 {
    hand_over(subgroupMax(value), local);
    var most = subgroup_values[local.first];
    for (var subgroup = local.first + 1u; subgroup < local.end; subgroup++) {
        most = max(most, subgroup_values[subgroup]);
    }
    return most;
}

// The least of whole numbers over a team.
fn team_least(value: u32, local: Local) -> u32 {
    let own = subgroupMin(value);
    workgroupBarrier();
    if local.member == 0u {
        subgroup_indices[local.subgroup] = own;
    }
    workgroupBarrier();
    var least = subgroup_indices[local.first];
    for (var subgroup = local.first + 1u; subgroup < local.end; subgroup++) {
        least = min(least, subgroup_indices[subgroup]);
    }
    return least;
}

// Shows the team what a subgroup has found, once all have seen what was shown before.
fn hand_over(value: f32, local: Local) {
    workgroupBarrier();
    if local.member == 0u {
        subgroup_values[local.subgroup] = value;
    }
    workgroupBarrier();
}
