// As cross_entropy_workgroup, and in place of the logits the derivative of the loss: softmax - onehot(target).
#import common
#import cross_entropy_by_workgroup

@group(0) @binding(0) var<storage, read_write> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> statistics: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(workgroup, workgroups);
    let softmax = workgroup_softmax(row, lane);
    // The first invocation has read the target's logit before any is replaced.
    storageBarrier();
    workgroupBarrier();
    let start = row * params.width;
    let width = select(0u, params.width, row < params.rows);
    for (var i = lane; i < width; i += 256u) {
        var gradient = 0.0;
        if softmax.label != IGNORE {
            gradient = exp(logits[start + i] - softmax.largest) / softmax.sum - select(0.0, 1.0, i == softmax.label);
        }
        logits[start + i] = gradient;
    }
}
