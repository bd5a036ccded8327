// Loss, entropy and correctness of each row of logits.
#import cross_entropy_statistics

@group(0) @binding(0) var<storage, read> logits: array<Element>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> statistics: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, params.width);
    let softmax = softmax_of(walk, local);
}
