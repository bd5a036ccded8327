// 1 / (1 + e^-x), by sign so that nothing overflows.
fn sigmoid(x: f32) -> f32 {
    let small = exp(-abs(x));
    return select(1.0, small, x < 0.0) / (1.0 + small);
}
