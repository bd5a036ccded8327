//! What passes can do with a kernel: each is something that it says of itself.

use std::ops::Range;

use super::{Kernel, words};

/// What a kernel says of itself if it goes through its buffers side by side, element by element, but for some of which every element
/// takes the whole: it can be run over some of the elements at a time.
pub struct Elementwise<P> {
    /// How many elements it goes through; `None` if the inputs lie in another way.
    pub elements: fn(&P) -> Option<usize>,
    /// The parameters for some of the elements.
    pub part: fn(&P, Range<usize>) -> P,
}

impl Elementwise<()> {
    /// Parts begin at multiples of so many elements; where only the twin runs them, those of a [`Pointwise`] kernel do at multiples of
    /// four.
    pub const PART: usize = 1 << 14;
}

/// What a kernel says of itself if each element of its one output comes from the same element of its inputs, all f32: it can be
/// fused with others (`passes::fuse`).
pub struct Pointwise<P> {
    /// How it is run over some of the elements; the first is a multiple of four.
    pub elementwise: Elementwise<P>,
    /// Bit k is set where input k is one number for all elements.
    pub numbers: fn(&P) -> u32,
    /// Which of its functions it computes.
    pub function: fn(&P) -> u32,
    /// That function of four elements in WGSL: `$0`, `$1` … stand for the inputs (`vec4<f32>`), `#` for its words
    /// (`vec4<u32>`), `i` is the index of the four.
    pub expression: fn(u32) -> String,
    /// The WGSL file that the expression needs.
    pub import: Option<&'static str>,
    /// Parameters of the expression.
    pub words: fn(&P) -> [u32; 4],
}

/// What a kernel says of itself if it goes through its buffers, all f32, row by row: pointwise work on its result can be done as
/// the rows come (`passes::fuse`). Its shaders for such rows go through them by vectors, and call `store(i, value)` with every four
/// elements of the result; on their own they import `store.wgsl`.
pub struct Rowwise<P> {
    /// Rows, and elements of one in the result; whole vectors of four.
    pub size: fn(&P) -> [usize; 2],
    /// The binding of the result.
    pub result: usize,
    /// Elements of a row in each of the buffers; 0 where all rows share the whole.
    pub strides: fn(&P) -> Vec<usize>,
    /// The parameters with which the twin computes so many of the rows.
    pub part: fn(&P, usize) -> P,
}

/// What a kernel says of itself if it finds its way by indices. It is not recorded where one may be out of range, so that neither
/// shader nor twin meets it.
pub struct Indices {
    /// The binding of the indices.
    pub binding: usize,
    /// How many there are to choose from.
    pub below: u32,
    /// Whether the largest u32 may stand among them, for none.
    pub or_none: bool,
}

/// What a kernel says of itself if it can do more to its one result before it writes it (`passes::finish`).
pub struct Epilogue<P> {
    /// The binding of the result.
    pub result: usize,
    /// That of what is added to it, stored as it is.
    pub residual: usize,
    /// How the result is shared out: dispatches by one shader that agree in it have the same grid, in which each element is written, and
    /// what is added to it read, by the same invocation.
    pub shared: fn(&P) -> [u32; 4],
    /// Has something added to the result. False if it cannot, as where that is done already.
    pub add: fn(&mut P) -> bool,
    /// Has places of the result dropped, as a [`Finish::Dropout`] says. False if it cannot.
    pub drop: fn(&mut P, [u32; 4]) -> bool,
}

/// What the kernel before can do in the place of one that only finishes its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// The sum of its two inputs.
    Sum,
    /// Its input with places dropped: the words of their key, of how many are, and of what the others are multiplied by.
    Dropout([u32; 4]),
}

/// An [`Elementwise`] without its type.
pub struct AnyElementwise {
    /// See [`Elementwise::elements`].
    pub elements: fn(&[u8]) -> Option<usize>,
    /// See [`Elementwise::part`].
    pub part: fn(&[u8], Range<usize>) -> Vec<u32>,
}

impl AnyElementwise {
    pub(super) const fn of<K: Kernel>() -> AnyElementwise {
        const fn elementwise<K: Kernel>() -> &'static Elementwise<K::Params> {
            K::ELEMENTWISE.expect("asked for only where there is one")
        }
        AnyElementwise {
            elements: |params| (elementwise::<K>().elements)(bytemuck::from_bytes(params)),
            part: |params, range| words(&(elementwise::<K>().part)(bytemuck::from_bytes(params), range)),
        }
    }
}

/// A [`Pointwise`] without its type.
pub struct AnyPointwise {
    /// See [`Pointwise::numbers`].
    pub numbers: fn(&[u8]) -> u32,
    /// See [`Pointwise::function`].
    pub function: fn(&[u8]) -> u32,
    /// See [`Pointwise::expression`].
    pub expression: fn(u32) -> String,
    /// See [`Pointwise::import`].
    pub import: Option<&'static str>,
    /// See [`Pointwise::words`].
    pub words: fn(&[u8]) -> [u32; 4],
}

impl AnyPointwise {
    pub(super) const fn of<K: Kernel>() -> AnyPointwise {
        const fn pointwise<K: Kernel>() -> &'static Pointwise<K::Params> {
            K::POINTWISE.expect("asked for only where there is one")
        }
        AnyPointwise {
            numbers: |params| (pointwise::<K>().numbers)(bytemuck::from_bytes(params)),
            function: |params| (pointwise::<K>().function)(bytemuck::from_bytes(params)),
            expression: pointwise::<K>().expression,
            import: pointwise::<K>().import,
            words: |params| (pointwise::<K>().words)(bytemuck::from_bytes(params)),
        }
    }
}

/// A [`Rowwise`] without its type.
pub struct AnyRowwise {
    /// See [`Rowwise::size`].
    pub size: fn(&[u8]) -> [usize; 2],
    /// See [`Rowwise::result`].
    pub result: usize,
    /// See [`Rowwise::strides`].
    pub strides: fn(&[u8]) -> Vec<usize>,
    /// See [`Rowwise::part`].
    pub part: fn(&[u8], usize) -> Vec<u32>,
}

impl AnyRowwise {
    pub(super) const fn of<K: Kernel>() -> AnyRowwise {
        const fn rowwise<K: Kernel>() -> &'static Rowwise<K::Params> {
            K::ROWWISE.expect("asked for only where there is one")
        }
        AnyRowwise {
            size: |params| (rowwise::<K>().size)(bytemuck::from_bytes(params)),
            result: rowwise::<K>().result,
            strides: |params| (rowwise::<K>().strides)(bytemuck::from_bytes(params)),
            part: |params, rows| words(&(rowwise::<K>().part)(bytemuck::from_bytes(params), rows)),
        }
    }
}

/// An [`Epilogue`] without its type.
pub struct AnyEpilogue {
    /// See [`Epilogue::result`].
    pub result: usize,
    /// See [`Epilogue::residual`].
    pub residual: usize,
    /// See [`Epilogue::shared`].
    pub shared: fn(&[u8]) -> [u32; 4],
    /// See [`Epilogue::add`].
    pub add: fn(&mut [u8]) -> bool,
    /// See [`Epilogue::drop`].
    pub drop: fn(&mut [u8], [u32; 4]) -> bool,
}

impl AnyEpilogue {
    pub(super) const fn of<K: Kernel>() -> AnyEpilogue {
        const fn epilogue<K: Kernel>() -> &'static Epilogue<K::Params> {
            K::EPILOGUE.expect("asked for only where there is one")
        }
        AnyEpilogue {
            result: epilogue::<K>().result,
            residual: epilogue::<K>().residual,
            shared: |params| (epilogue::<K>().shared)(bytemuck::from_bytes(params)),
            add: |params| (epilogue::<K>().add)(bytemuck::from_bytes_mut(params)),
            drop: |params, drops| (epilogue::<K>().drop)(bytemuck::from_bytes_mut(params), drops),
        }
    }
}
