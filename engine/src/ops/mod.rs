//! Every op, one file each: the function with its documentation, its backward rule directly beneath, the parameters, the CPU
//! twin, and the cases that the laws run it on. The shaders stand in `shaders/wgsl`.

use crate::kernel::AnyKernel;
use crate::testing::Case;

mod team;
mod view;

/// One file of ops, as tests and benches see it.
pub struct Op {
    /// The file's stem.
    pub name: &'static str,
    /// The kernels it records; none for a composition of other ops.
    pub kernels: &'static [&'static AnyKernel],
    /// What the laws run it on.
    pub cases: fn() -> Vec<Case>,
}

macro_rules! ops {
    ($($name:ident)*) => {
        $(mod $name; pub use $name::*;)*
        /// All ops: the laws, the benches and the reference page go through this list.
        pub const OPS: &[Op] = &[$($name::OP),*];
    };
}

// Adding an op is its file, its shader and its name here.
ops! {
    adamw
    attention
    binary
    cast
    cat
    ceilings
    clip
    copy
    cross_entropy
    dropout
    full
    gather
    ladder
    linear_cross_entropy
    log_probs
    log_softmax
    matmul
    norm
    reduce
    rms_norm_rope
    rope
    scale
    sgd
    softmax
    swiglu
    unary
    where_
    write_pages
}
