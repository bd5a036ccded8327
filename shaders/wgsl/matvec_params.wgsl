// y [n] = W [n, k] x [k]: the rows of W, f32, f16 or bf16, lie one after the other from element `offset` on.
#import storage
#import matmul_epilogue

struct Params {
    n: u32, k: u32, offset: u32, dtype: u32,
    scale: f32, has_bias: u32, has_residual: u32, operation: u32,
    key_0: u32, key_1: u32, dropped: u32, kept_scale: f32,
}

@group(1) @binding(0) var<uniform> params: Params;

override DTYPE: u32 = 0u;
