// Whether the f32 with these bits is neither NaN nor infinite. An implementation may assume that floats are, bits are not.
fn is_finite(bits: u32) -> bool {
    return (bits & 0x7fffffffu) < 0x7f800000u;
}
