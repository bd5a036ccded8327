// The gradient of two queries an invocation.
#import attention_rows

@group(0) @binding(5) var<storage, read> grad: array<f32>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> query_grad: array<f32>;

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
        query_grad[output_x + d] = 0.0;
        query_grad[output_y + d] = 0.0;
    }
    let log_sum_x = all_of(statistics[row_x].x);
    let log_sum_y = all_of(statistics[row_y].x);
    let dot_x = statistics[row_x].y;
    let dot_y = statistics[row_y].y;
    let range_x = seen_by(mine.batch, mine.first);
    let range_y = seen_by(mine.batch, mine.second);
    for (var first = min(range_x.x, range_y.x); first < max(range_x.y, range_y.y); first += BLOCK) {
        let at = positions(first, params.keys);
        let key_at = starts(params.key, mine.batch, at, key_head);
        let value_at = starts(params.value, mine.batch, at, key_head);
        var scores_x = all_of(0.0);
        var scores_y = all_of(0.0);
        var grads_x = all_of(-dot_x);
        var grads_y = all_of(-dot_y);
        for (var d = 0u; d < params.head_dim; d++) {
            let keys = key_block(key_at, d);
            scores_x = add_scaled(scores_x, query[query_x + d] * params.scale, keys);
            scores_y = add_scaled(scores_y, query[query_y + d] * params.scale, keys);
            let values = value_block(value_at, d);
            grads_x = add_scaled(grads_x, grad[output_x + d], values);
            grads_y = add_scaled(grads_y, grad[output_y + d], values);
        }
        let shown_x = shown(range_x, mine.batch, mine.first, first);
        let shown_y = shown(range_y, mine.batch, mine.second, first);
        let z_x = times(keep(shown_x, exp_below(scores_x, log_sum_x), 0.0), grads_x);
        let z_y = times(keep(shown_y, exp_below(scores_y, log_sum_y), 0.0), grads_y);
        for (var d = 0u; d < params.head_dim; d++) {
            let keys = key_block(key_at, d);
            query_grad[output_x + d] += inner(z_x, keys);
            if two {
                query_grad[output_y + d] += inner(z_y, keys);
            }
        }
    }
    for (var d = 0u; d < params.head_dim; d++) {
        query_grad[output_x + d] *= params.scale;
        if two {
            query_grad[output_y + d] *= params.scale;
        }
    }
}
