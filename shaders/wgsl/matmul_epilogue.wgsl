// What becomes of a product's sums on their way out: y = activation(scale * sum + bias) + residual, or y += scale * sum.
#import unary_functions

// Any buffer, and not read, where there is none.
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Of the unary family; past its end, none.
override OPERATION: u32 = 255u;
override ACCUMULATE: bool = false;
override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;

// Writes element `at` of y, in this column.
fn store(at: u32, column: u32, sum: f32) {
    var value = params.scale * sum;
    if ACCUMULATE {
        y[at] += value;
        return;
    }
    if HAS_BIAS {
        value += bias[column];
    }
    value = unary(OPERATION, value);
    if HAS_RESIDUAL {
        value += residual[at];
    }
    y[at] = value;
}
