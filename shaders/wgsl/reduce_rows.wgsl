// Rows by teams, with inner = 1 and one part a row.
#import scalars
#import team
#import reduce_functions

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.outer, params.length);
    var own = start();
    var place = local.lane;
    for (var i = walk.first; i < walk.end; i += LANES) {
        own = combine(own, Best(x[i], place));
        place += LANES;
    }
    let best = team_best(own, local);
    if local.lane == 0u && walk.row < params.outer {
        store(walk.row, best);
    }
}

fn team_best(own: Best, local: Local) -> Best {
    if OPERATION == SUM {
        return Best(team_sum(own.value, local), 0u);
    }
    var best = Best(team_max(own.value, local), 0u);
    if OPERATION == ARGMAX {
        best.index = team_least(select(0xffffffffu, own.index, own.value == best.value), local);
    }
    return best;
}
