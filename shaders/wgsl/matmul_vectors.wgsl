// Operands in whole vectors of four, read as f32. A buffer of f16 or bf16 ends with a whole vector of eight.
#import matmul_blocks
#import storage

@group(0) @binding(0) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<u32>>;

alias Four = vec4<f32>;
alias Block = mat4x4<f32>;

fn a_four(at: u32) -> Four {
    if A_DTYPE == 0u {
        return bitcast<vec4<f32>>(a[at / 4u]);
    }
    return four_of_eight(A_DTYPE, a[at / 8u], at);
}

fn b_four(at: u32) -> Four {
    if B_DTYPE == 0u {
        return bitcast<vec4<f32>>(b[at / 4u]);
    }
    return four_of_eight(B_DTYPE, b[at / 8u], at);
}

fn four_of_eight(dtype: u32, eight: vec4<u32>, at: u32) -> vec4<f32> {
    let words = select(eight.xy, eight.zw, at % 8u == 4u);
    return vec4(widen_low(dtype, words.x), widen_high(dtype, words.x), widen_low(dtype, words.y), widen_high(dtype, words.y));
}
