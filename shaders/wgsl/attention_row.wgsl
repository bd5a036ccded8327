// Attention with two queries an invocation.
#import attention_rows

@group(0) @binding(5) var<storage, read_write> output: array<f32>;
@group(0) @binding(6) var<storage, read_write> log_sums: array<f32>;

// The largest score and the sum of e^(score - largest) so far.
struct State { most: f32, sum: f32 }

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let mine = pair(linear_workgroup(workgroup, workgroups) * INVOCATIONS + lane, params.queries, params.heads);
    if mine.batch >= params.batch {
        return;
    }
    let two = mine.second != mine.first;
    let key_head = mine.head / group();
    let query_x = row_start(params.query, mine.batch, mine.first, mine.head);
    let query_y = row_start(params.query, mine.batch, mine.second, mine.head);
    let row_x = query_row(mine.batch, mine.first, mine.head);
    let row_y = query_row(mine.batch, mine.second, mine.head);
    let output_x = row_x * params.head_dim;
    let output_y = row_y * params.head_dim;
    for (var d = 0u; d < params.head_dim; d++) {
        output[output_x + d] = 0.0;
        output[output_y + d] = 0.0;
    }
    var x = State(HIDDEN, 0.0);
    var y = State(HIDDEN, 0.0);
    let range_x = seen_by(mine.batch, mine.first);
    let range_y = seen_by(mine.batch, mine.second);
    for (var first = min(range_x.x, range_y.x); first < max(range_x.y, range_y.y); first += BLOCK) {
        let at = places(mine.batch, positions(first, params.keys));
        let key_at = starts(params.key, mine.batch, at, key_head);
        var scores_x = all_of(0.0);
        var scores_y = all_of(0.0);
        for (var d = 0u; d < params.head_dim; d++) {
            let keys = key_block(key_at, d);
            scores_x = add_scaled(scores_x, query[query_x + d] * params.scale, keys);
            scores_y = add_scaled(scores_y, query[query_y + d] * params.scale, keys);
        }
        let shown_x = shown(range_x, mine.batch, mine.first, first);
        let shown_y = shown(range_y, mine.batch, mine.second, first);
        scores_x = keep(shown_x, scores_x, HIDDEN);
        scores_y = keep(shown_y, scores_y, HIDDEN);
        let most_x = max(x.most, largest(scores_x));
        let most_y = max(y.most, largest(scores_y));
        let weights_x = keep(shown_x, exp_below(scores_x, all_of(most_x)), 0.0);
        let weights_y = keep(shown_y, exp_below(scores_y, all_of(most_y)), 0.0);
        let kept_x = exp(min(x.most - most_x, 0.0));
        let kept_y = exp(min(y.most - most_y, 0.0));
        x = State(most_x, x.sum * kept_x + inner(weights_x, all_of(1.0)));
        y = State(most_y, y.sum * kept_y + inner(weights_y, all_of(1.0)));
        let value_at = starts(params.value, mine.batch, at, key_head);
        for (var d = 0u; d < params.head_dim; d++) {
            let values = value_block(value_at, d);
            output[output_x + d] = output[output_x + d] * kept_x + inner(weights_x, values);
            if two {
                output[output_y + d] = output[output_y + d] * kept_y + inner(weights_y, values);
            }
        }
    }
    let scale_x = select(1.0 / x.sum, 0.0, x.sum == 0.0);
    let scale_y = select(1.0 / y.sum, 0.0, y.sum == 0.0);
    for (var d = 0u; d < params.head_dim; d++) {
        output[output_x + d] *= scale_x;
        if two {
            output[output_y + d] *= scale_y;
        }
    }
    log_sums[row_x] = select(x.most + log(x.sum), HIDDEN, x.sum == 0.0);
    log_sums[row_y] = select(y.most + log(y.sum), HIDDEN, y.sum == 0.0);
}

fn largest(x: Block) -> f32 {
    let most = max(max(x.a, x.b), max(x.c, x.d));
    return max(max(most.x, most.y), max(most.z, most.w));
}
