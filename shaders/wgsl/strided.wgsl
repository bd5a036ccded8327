// Strided views of up to six axes, outermost first; unused axes come first and have size 1.

struct View {
    sizes_outer: vec4<u32>,
    strides_outer: vec4<u32>,
    // sizes of the last two axes, then their strides
    inner: vec4<u32>,
    // where element (0, 0, ...) lies
    offset: vec4<u32>,
}

// Where the element with this row-major index lies.
fn position(view: View, index: u32) -> u32 {
    // One division an axis: on a CPU's vectors it takes longer than a load.
    let row = index / view.inner.y;
    var rest = row / view.inner.x;
    var at = view.offset.x + (index - row * view.inner.y) * view.inner.w + (row - rest * view.inner.x) * view.inner.z;
    for (var axis = 3i; axis >= 0i && rest > 0u; axis--) {
        let next = rest / view.sizes_outer[axis];
        at += (rest - next * view.sizes_outer[axis]) * view.strides_outer[axis];
        rest = next;
    }
    return at;
}

// Whether all rows are of whole fours. A constant: an adapter that runs on the CPU goes through both sides of a branch.
override IN_FOURS: bool = false;

// Where this element and the three after it lie.
fn four_positions(view: View, index: u32) -> vec4<u32> {
    if IN_FOURS {
        return vec4(position(view, index)) + vec4(0u, 1u, 2u, 3u) * view.inner.w;
    }
    return vec4(position(view, index), position(view, index + 1u), position(view, index + 2u), position(view, index + 3u));
}
