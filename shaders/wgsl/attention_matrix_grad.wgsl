// What both gradients of attention on matrix units share.

@group(0) @binding(5) var<storage, read> grad: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> statistics: array<vec2<f32>>;

// The largest f16.
const MOST_HALF = vec4(65504.0);

// e^(score - log sum), where shown.
fn weight(score: vec4<f32>, log_sum: vec4<f32>, shown: vec4<bool>) -> vec4<f32> {
    return select(vec4(0.0), exp(min(score * params.scale - log_sum, vec4(0.0))), shown);
}

// The gradients of scores, p (dp - dot), as f16 holds them.
fn score_grad(weight: vec4<f32>, grad: vec4<f32>, dot: vec4<f32>) -> vec4<f32> {
    return clamp(weight * (grad - dot), -MOST_HALF, MOST_HALF);
}

fn grad_four(tile: Tile, position: u32, quad: u32) -> vec4<f32> {
    if position < params.queries {
        return grad[given_row(tile.batch, position, tile.query_head) * HEAD_DIM / 4u + quad];
    }
    return vec4(0.0);
}
