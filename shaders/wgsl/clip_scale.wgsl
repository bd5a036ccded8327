// y = min(1, most / (norm + 1e-6)); a norm that is not finite is handed on bit by bit.
#import finite

struct Params { most: f32 }

@group(0) @binding(0) var<storage, read> norm: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(1)
fn main() {
    let bits = norm[0];
    if is_finite(bits) {
        y[0] = bitcast<u32>(min(1.0, params.most / (bitcast<f32>(bits) + 1e-6)));
    } else {
        y[0] = bits;
    }
}
