// Philox4x32-10 (Salmon et al. 2011): four random words for a counter, the same as `Philox::block` in engine/src/random.rs.

// The high word of a * b, by halves: WGSL has no 64-bit integers.
fn multiply_high(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let first = a_high * b_low + (low >> 16u);
    let second = a_low * b_high + (first & 0xffffu);
    return a_high * b_high + (first >> 16u) + (second >> 16u);
}

fn philox(counter: u32, key: vec2<u32>) -> vec4<u32> {
    var c = vec4(counter, 0u, 0u, 0u);
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let high0 = multiply_high(c.x, 0xd2511f53u);
        let high1 = multiply_high(c.z, 0xcd9e8d57u);
        c = vec4(high1 ^ c.y ^ k.x, c.z * 0xcd9e8d57u, high0 ^ c.w ^ k.y, c.x * 0xd2511f53u);
        k += vec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// The numbers of 24 bits that four places draw which decide what is dropped.
fn draws(block: u32, key: vec2<u32>) -> vec4<u32> {
    return philox(block, key) >> vec4(8u);
}
