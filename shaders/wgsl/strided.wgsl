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
    var rest = index;
    var at = view.offset.x;
    at += (rest % view.inner.y) * view.inner.w;
    rest /= view.inner.y;
    at += (rest % view.inner.x) * view.inner.z;
    rest /= view.inner.x;
    for (var axis = 3i; axis >= 0i && rest > 0u; axis--) {
        at += (rest % view.sizes_outer[axis]) * view.strides_outer[axis];
        rest /= view.sizes_outer[axis];
    }
    return at;
}

// Where this element and the three after it lie.
fn four_positions(view: View, index: u32) -> vec4<u32> {
    if view.inner.y % 4u == 0u {
        return vec4(position(view, index)) + vec4(0u, 1u, 2u, 3u) * view.inner.w;
    }
    return vec4(position(view, index), position(view, index + 1u), position(view, index + 2u), position(view, index + 3u));
}
