//! Every op, one file each: the function with its documentation, its backward rule directly beneath, the parameters, the CPU
//! twin, and the cases that the laws run it on. The shaders stand in `shaders/wgsl`.

use crate::kernel::AnyKernel;
use crate::testing::Case;

mod adamw;
mod attention;
mod binary;
mod cast;
mod cat;
mod ceilings;
mod clip;
mod copy;
mod cross_entropy;
mod dropout;
mod full;
mod gather;
mod ladder;
mod linear_cross_entropy;
mod log_probs;
mod log_softmax;
mod matmul;
mod norm;
mod reduce;
mod rms_norm_rope;
mod rope;
mod scale;
mod sgd;
mod softmax;
mod swiglu;
mod team;
mod unary;
mod view;
mod where_;
mod write_pages;

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
        $(pub use $name::*;)*
        /// All ops: the laws, the benches and the reference page go through this list.
        pub static OPS: &[Op] = &[$($name::OP),*];
    };
}

// Adding an op is its file, its shader and its name here and above: rustfmt goes by modules that no macro declares.
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
