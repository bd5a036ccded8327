// Operands of f16 in whole vectors of four.
enable f16;
#import matmul_blocks

@group(0) @binding(0) var<storage, read> a: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f16>>;

alias Four = vec4<f16>;
alias Block = mat4x4<f16>;

fn a_four(at: u32) -> Four {
    return a[at / 4u];
}

fn b_four(at: u32) -> Four {
    return b[at / 4u];
}
