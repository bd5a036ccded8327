// The unary family. The numbers are the order of the table in engine/src/ops/unary.rs.
#import sigmoid

const SQRT_2_OVER_PI = 0.7978845608028654;
const SQRT_HALF = 0.7071067811865476;
const INVERSE_SQRT_2_PI = 0.3989422804014327;

// Some drivers overflow inside tanh: beyond 15 it is 1 to the last bit.
fn safe_tanh(x: f32) -> f32 {
    return tanh(clamp(x, -15.0, 15.0));
}

// The error function by Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - p * exp(-min(x * x, 80.0)));
}

const TWO_OVER_PI = 0.6366197723675814;
// pi/2 in three parts, of which the first two have so few bits that small multiples of them are exact.
const HALF_PI_1 = 1.5703125;
const HALF_PI_2 = 4.837512969970703125e-4;
const HALF_PI_3 = 7.549789948768648e-8;

// sin(x + quarters pi/2). The built-in functions may be 5e-4 off; Taylor's series within pi/4 of 0 are within a rounding.
fn sine(x: f32, quarters: i32) -> f32 {
    let n = round(x * TWO_OVER_PI);
    let r = ((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3;
    let z = r * r;
    let odd = r + r * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362880.0))));
    let even = 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0))));
    let quadrant = i32(n) + quarters;
    let magnitude = select(odd, even, (quadrant & 1) == 1);
    return select(magnitude, -magnitude, (quadrant & 2) == 2);
}

fn unary(operation: u32, x: f32) -> f32 {
    switch operation {
        case 0u: { return -x; }
        case 1u: { return exp(x); }
        case 2u: { return log(x); }
        case 3u: { return sqrt(x); }
        case 4u: { return 1.0 / sqrt(x); }
        case 5u: { return 1.0 / x; }
        case 6u: { return x * x; }
        case 7u: { return abs(x); }
        case 8u: { return sine(x, 0); }
        case 9u: { return sine(x, 1); }
        case 10u: { return safe_tanh(x); }
        case 11u: { return sigmoid(x); }
        case 12u: { return max(x, 0.0) + log(1.0 + exp(-abs(x))); }
        case 13u: { return max(x, 0.0); }
        case 14u: { return x * sigmoid(x); }
        case 15u: { return 0.5 * x * (1.0 + erf(x * SQRT_HALF)); }
        case 16u: { return 0.5 * x * (1.0 + safe_tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x))); }
        default: { return x; }
    }
}

fn unary_derivative(operation: u32, x: f32) -> f32 {
    switch operation {
        case 0u: { return -1.0; }
        case 1u: { return exp(x); }
        case 2u: { return 1.0 / x; }
        case 3u: { return 0.5 / sqrt(x); }
        case 4u: { return -0.5 / (x * sqrt(x)); }
        case 5u: { return -1.0 / (x * x); }
        case 6u: { return 2.0 * x; }
        case 7u: { return sign(x); }
        case 8u: { return sine(x, 1); }
        case 9u: { return sine(x, 2); }
        case 10u: { let t = safe_tanh(x); return 1.0 - t * t; }
        case 11u: { let s = sigmoid(x); return s * (1.0 - s); }
        case 12u: { return sigmoid(x); }
        case 13u: { return select(0.0, 1.0, x > 0.0); }
        case 14u: { let s = sigmoid(x); return s * (1.0 + x * (1.0 - s)); }
        case 15u: {
            return 0.5 * (1.0 + erf(x * SQRT_HALF)) + x * INVERSE_SQRT_2_PI * exp(-min(0.5 * x * x, 80.0));
        }
        case 16u: {
            let c = clamp(x, -20.0, 20.0);
            let t = safe_tanh(SQRT_2_OVER_PI * (c + 0.044715 * c * c * c));
            return 0.5 * (1.0 + t) + 0.5 * c * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 0.134145 * c * c);
        }
        default: { return 1.0; }
    }
}

fn unary_of_four(operation: u32, x: vec4<f32>) -> vec4<f32> {
    return vec4(unary(operation, x.x), unary(operation, x.y), unary(operation, x.z), unary(operation, x.w));
}

fn unary_derivative_of_four(operation: u32, x: vec4<f32>) -> vec4<f32> {
    return vec4(
        unary_derivative(operation, x.x),
        unary_derivative(operation, x.y),
        unary_derivative(operation, x.z),
        unary_derivative(operation, x.w),
    );
}
