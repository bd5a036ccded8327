// 1 / (1 + e^-x), by sign so that nothing overflows.
fn sigmoid(x: f32) -> f32 {
    let small = exp(-abs(x));
    return select(1.0, small, x < 0.0) / (1.0 + small);
}

fn sigmoids(x: vec4<f32>) -> vec4<f32> {
    return vec4(sigmoid(x.x), sigmoid(x.y), sigmoid(x.z), sigmoid(x.w));
}
