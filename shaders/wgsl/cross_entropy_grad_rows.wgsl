// As cross_entropy_rows, and in place of the logits their gradient: that of the loss times p - onehot(target), less that of the
// entropy times p (ln p + entropy), for p = softmax(logits).
#import cross_entropy_statistics

@group(0) @binding(0) var<storage, read_write> logits: array<Element>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> statistics: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(LANES * ROWS)
fn main(invocation: Invocation) {
    let local = local_of(invocation);
    let walk = walk_of(invocation, local, params.rows, params.width);
    let softmax = softmax_of(walk, local);
    let counts = softmax.label != IGNORE;
    var of_loss = 1.0;
    var of_entropy = 0.0;
    if params.weighted != 0u && counts {
        let at = 3u * (params.first + min(walk.row, params.rows - 1u));
        of_loss = gradient[at];
        of_entropy = gradient[at + 1u];
    }
    let scale = select(0.0, 1.0 / softmax.sum, counts);
    var place = local.lane;
    for (var i = walk.first; i < walk.end; i += LANES) {
        let distance = clamp(logits[i] - softmax.offset, Element(-3.4028234e38), Element(0.0));
        // ln p + entropy is how far a logit is above their mean.
        let weight = of_loss - of_entropy * (distance - softmax.mean);
        logits[i] = exp(distance) * scale * weight - of_loss * number(indices_at(place) == Indices(softmax.label));
        place += LANES;
    }
}
