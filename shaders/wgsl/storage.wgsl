// Floating-point storage types by number: 0 f32, 1 f16, 2 bf16. Narrow types lie two to a word, the first in the low half.

fn bf16_round(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    // NaN keeps a payload bit; everything else rounds to nearest even.
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    return select(rounded, (bits >> 16u) | 0x40u, (bits & 0x7fffffffu) > 0x7f800000u);
}

// To the nearest of the numbers that f16 has from 2^-14 on, even where two are as near: WGSL leaves the direction to the driver.
fn f16_round(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    let rounded = (bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u;
    let is_normal = (bits & 0x7fffffffu) >= 0x38800000u && (bits & 0x7f800000u) != 0x7f800000u;
    return bitcast<f32>(select(bits, rounded, is_normal));
}

fn widen_low(dtype: u32, word: u32) -> f32 {
    switch dtype {
        case 0u: { return bitcast<f32>(word); }
        case 1u: { return unpack2x16float(word).x; }
        default: { return bitcast<f32>(word << 16u); }
    }
}

fn widen_high(dtype: u32, word: u32) -> f32 {
    switch dtype {
        case 1u: { return unpack2x16float(word).y; }
        default: { return bitcast<f32>(word & 0xffff0000u); }
    }
}

// Two values as one word of a narrow type.
fn narrow(dtype: u32, low: f32, high: f32) -> u32 {
    if dtype == 1u {
        return pack2x16float(vec2(f16_round(low), f16_round(high)));
    }
    return bf16_round(low) | (bf16_round(high) << 16u);
}
