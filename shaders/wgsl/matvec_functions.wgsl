// Elements of x and W, wherever a row begins.
#import matvec_params

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<u32>;

fn element(at: u32) -> f32 {
    if DTYPE == 0u {
        return bitcast<f32>(weight[at]);
    }
    let word = weight[at / 2u];
    if at % 2u == 0u {
        return widen_low(DTYPE, word);
    }
    return widen_high(DTYPE, word);
}
