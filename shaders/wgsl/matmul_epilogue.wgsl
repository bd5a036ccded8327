// What becomes of a product's sums on their way out: y = activation(scale * sum + bias) + residual, or y += scale * sum.
#import unary_functions

// Not read where `params` says that there is none.
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Of the unary family; past its end, none.
override OPERATION: u32 = 255u;
override ACCUMULATE: bool = false;

// Writes element `at` of y, in this column.
fn store(at: u32, column: u32, sum: f32) {
    var value = params.scale * sum;
    if ACCUMULATE {
        y[at] += value;
        return;
    }
    if params.has_bias == 1u {
        value += bias[column];
    }
    value = unary(OPERATION, value);
    if params.has_residual == 1u {
        value += residual[at];
    }
    y[at] = value;
}
