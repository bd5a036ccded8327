// y [n] = W [n, k] x [k]: the rows of W, f32, f16 or bf16, lie one after the other from element `offset` on.
#import storage
#import matmul_epilogue

struct Params {
    n: u32, k: u32, offset: u32, dtype: u32,
    scale: f32, has_bias: u32, has_residual: u32, operation: u32,
    key_0: u32, key_1: u32, dropped: u32, kept_scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

override DTYPE: u32 = 0u;

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
