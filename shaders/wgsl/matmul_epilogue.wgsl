// What becomes of a product's sums on their way out: y = dropout(activation(scale * sum + bias)) +
// residual, or y += scale * sum.
#import unary_functions
#import philox

// Any buffer, and not read, where there is none.
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Of the unary family; past its end, none.
override OPERATION: u32 = 255u;
override ACCUMULATE: bool = false;
override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;
override DROPS: bool = false;

// The draws of four neighbours, of which the first is at a multiple of four.
fn drawn_at(at: u32) -> vec4<u32> {
    return draws(at / 4u, vec2(params.key_0, params.key_1));
}

// Writes element `at` of y, in this column; `drawn` is not read unless something drops.
fn store_drawn(at: u32, column: u32, sum: f32, drawn: u32) {
    var value = params.scale * sum;
    if ACCUMULATE {
        y[at] += value;
        return;
    }
    if HAS_BIAS {
        value += bias[column];
    }
    value = unary(OPERATION, value);
    if DROPS {
        value = select(0.0, params.kept_scale * value, drawn >= params.dropped);
    }
    if HAS_RESIDUAL {
        value += residual[at];
    }
    y[at] = value;
}

fn store(at: u32, column: u32, sum: f32) {
    var drawn = 0u;
    if DROPS {
        drawn = drawn_at(at)[at % 4u];
    }
    store_drawn(at, column, sum, drawn);
}
