// The gradients of two keys and their values an invocation.
#import attention_rows

@group(0) @binding(5) var<storage, read> grad: array<f32>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let mine = pair(linear_workgroup(workgroup, workgroups) * INVOCATIONS + lane, params.keys, params.key_heads);
    if mine.batch >= params.batch {
        return;
    }
    let two = mine.second != mine.first;
    let key_x = row_start(params.key, mine.batch, mine.first, mine.head);
    let key_y = row_start(params.key, mine.batch, mine.second, mine.head);
    let value_x = row_start(params.value, mine.batch, mine.first, mine.head);
    let value_y = row_start(params.value, mine.batch, mine.second, mine.head);
    let output_x = ((mine.batch * params.keys + mine.first) * params.key_heads + mine.head) * params.head_dim;
    let output_y = ((mine.batch * params.keys + mine.second) * params.key_heads + mine.head) * params.head_dim;
    let values = values_start();
    for (var d = 0u; d < params.head_dim; d++) {
        gradients[output_x + d] = 0.0;
        gradients[output_y + d] = 0.0;
        gradients[values + output_x + d] = 0.0;
        gradients[values + output_y + d] = 0.0;
    }
    let range_x = seeing_of_part(mine.batch, mine.first);
    let range_y = seeing_of_part(mine.batch, mine.second);
    let lie = vec4(params.queries * params.heads, params.heads, 1u, 0u);
    for (var member = 0u; member < group(); member++) {
        let head = mine.head * group() + member;
        for (var first = min(range_x.x, range_y.x); first < max(range_x.y, range_y.y); first += BLOCK) {
            let at = positions(first, params.queries);
            let query_at = starts(params.query, mine.batch, at, head);
            let rows = starts(lie, mine.batch, at, head);
            let grad_at = starts(lie * params.head_dim, mine.batch, at, head);
            var scores_x = all_of(0.0);
            var scores_y = all_of(0.0);
            var grads_x = all_of(0.0);
            var grads_y = all_of(0.0);
            for (var d = 0u; d < params.head_dim; d++) {
                let queries = query_block(query_at, d);
                scores_x = add_scaled(scores_x, key[key_x + d] * params.scale, queries);
                scores_y = add_scaled(scores_y, key[key_y + d] * params.scale, queries);
                let grads = grad_block(grad_at, d);
                grads_x = add_scaled(grads_x, value[value_x + d], grads);
                grads_y = add_scaled(grads_y, value[value_y + d], grads);
            }
            let log_sum = log_sum_block(rows);
            let dots = dot_block(rows);
            let shown_x = shown(range_x, mine.batch, mine.first, first);
            let shown_y = shown(range_y, mine.batch, mine.second, first);
            let weights_x = keep(shown_x, exp_below(scores_x, log_sum), 0.0);
            let weights_y = keep(shown_y, exp_below(scores_y, log_sum), 0.0);
            let z_x = times(weights_x, add_scaled(grads_x, -1.0, dots));
            let z_y = times(weights_y, add_scaled(grads_y, -1.0, dots));
            for (var d = 0u; d < params.head_dim; d++) {
                let queries = query_block(query_at, d);
                let grads = grad_block(grad_at, d);
                gradients[output_x + d] += inner(z_x, queries) * params.scale;
                gradients[values + output_x + d] += inner(weights_x, grads);
                if two {
                    gradients[output_y + d] += inner(z_y, queries) * params.scale;
                    gradients[values + output_y + d] += inner(weights_y, grads);
                }
            }
        }
    }
}

fn query_block(at: Rows, d: u32) -> Block {
    return Block(
        vec4(query[at.a.x + d], query[at.a.y + d], query[at.a.z + d], query[at.a.w + d]),
        vec4(query[at.b.x + d], query[at.b.y + d], query[at.b.z + d], query[at.b.w + d]),
        vec4(query[at.c.x + d], query[at.c.y + d], query[at.c.z + d], query[at.c.w + d]),
        vec4(query[at.d.x + d], query[at.d.y + d], query[at.d.z + d], query[at.d.w + d]),
    );
}

fn grad_block(at: Rows, d: u32) -> Block {
    return Block(
        vec4(grad[at.a.x + d], grad[at.a.y + d], grad[at.a.z + d], grad[at.a.w + d]),
        vec4(grad[at.b.x + d], grad[at.b.y + d], grad[at.b.z + d], grad[at.b.w + d]),
        vec4(grad[at.c.x + d], grad[at.c.y + d], grad[at.c.z + d], grad[at.c.w + d]),
        vec4(grad[at.d.x + d], grad[at.d.y + d], grad[at.d.z + d], grad[at.d.w + d]),
    );
}

fn log_sum_block(at: Rows) -> Block {
    return Block(
        vec4(statistics[at.a.x].x, statistics[at.a.y].x, statistics[at.a.z].x, statistics[at.a.w].x),
        vec4(statistics[at.b.x].x, statistics[at.b.y].x, statistics[at.b.z].x, statistics[at.b.w].x),
        vec4(statistics[at.c.x].x, statistics[at.c.y].x, statistics[at.c.z].x, statistics[at.c.w].x),
        vec4(statistics[at.d.x].x, statistics[at.d.y].x, statistics[at.d.z].x, statistics[at.d.w].x),
    );
}

fn dot_block(at: Rows) -> Block {
    return Block(
        vec4(statistics[at.a.x].y, statistics[at.a.y].y, statistics[at.a.z].y, statistics[at.a.w].y),
        vec4(statistics[at.b.x].y, statistics[at.b.y].y, statistics[at.b.z].y, statistics[at.b.w].y),
        vec4(statistics[at.c.x].y, statistics[at.c.y].y, statistics[at.c.z].y, statistics[at.c.w].y),
        vec4(statistics[at.d.x].y, statistics[at.d.y].y, statistics[at.d.z].y, statistics[at.d.w].y),
    );
}
