// For kernels that are written once, for an element and for four at a time.

alias Element = f32;
alias Indices = u32;
const WIDTH = 1u;

fn total(x: Element) -> f32 {
    return x;
}

fn largest(x: Element) -> f32 {
    return x;
}

// The element at `at` of its vector.
fn component(x: Element, at: u32) -> f32 {
    return x;
}

// The indices of the elements at a place.
fn indices_at(place: u32) -> Indices {
    return place;
}

// 1 where so, else 0.
fn number(so: bool) -> Element {
    return select(0.0, 1.0, so);
}
