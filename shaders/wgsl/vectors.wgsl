// For kernels that are written once, for an element and for four at a time: rows are whole vectors.

alias Element = vec4<f32>;
alias Indices = vec4<u32>;
const WIDTH = 4u;

fn total(x: Element) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

fn largest(x: Element) -> f32 {
    let pairs = max(x.xy, x.zw);
    return max(pairs.x, pairs.y);
}

// The element at `at` of its vector.
fn component(x: Element, at: u32) -> f32 {
    return x[at];
}

// The indices of the elements at a place.
fn indices_at(place: u32) -> Indices {
    return vec4(4u * place) + vec4(0u, 1u, 2u, 3u);
}

// 1 where so, else 0.
fn number(so: vec4<bool>) -> Element {
    return select(vec4(0.0), vec4(1.0), so);
}
