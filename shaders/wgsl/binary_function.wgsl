// One of the binary family. The numbers are the order of the table in engine/src/ops/binary.rs.
fn binary(operation: u32, a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    switch operation {
        case 0u: { return a + b; }
        case 1u: { return a - b; }
        case 2u: { return a * b; }
        case 3u: { return a / b; }
        case 4u: { return select(b, a, a > b); }
        case 5u: { return select(b, a, a < b); }
        case 6u: { return select(vec4(0.0), vec4(1.0), a > b); }
        default: { return select(vec4(0.0), vec4(1.0), a == b); }
    }
}
