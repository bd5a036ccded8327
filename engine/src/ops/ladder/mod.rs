//! The teaching ladder: matmul and causal attention, from the definition to the kernels in use, a shader a rung
//! (`shaders/ladder`). All rungs of a ladder are the shaders of one kernel, so that a device opened with
//! [`Config { shader: Some(i), .. }`](crate::device::Config) runs rung `i` of [`matmul_rungs`] or [`attention_rungs`] where it
//! can run there, the laws check every rung against f64, and `wgtune bench --filter ladder` times each of them.

mod attention;
mod matmul;

use super::Op;
use crate::kernel::{AnyKernel, Kernel};

pub use attention::ladder_attention;
pub use matmul::ladder_matmul;

pub(crate) const OP: Op = Op {
    name: "ladder",
    kernels: &[AnyKernel::of::<matmul::LadderMatmul>(), AnyKernel::of::<attention::LadderAttention>()],
    cases: || matmul::cases().into_iter().chain(attention::cases()).collect(),
};

/// One step of a ladder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rung {
    /// Its shader, as in `ladder/matmul_1`.
    pub name: &'static str,
    /// What it adds to the step before: its first line.
    pub idea: &'static str,
}

/// The rungs of [`ladder_matmul`], in order.
pub fn matmul_rungs() -> Vec<Rung> {
    rungs::<matmul::LadderMatmul>()
}

/// The rungs of [`ladder_attention`], in order.
pub fn attention_rungs() -> Vec<Rung> {
    rungs::<attention::LadderAttention>()
}

fn rungs<K: Kernel>() -> Vec<Rung> {
    let rung = |name| Rung { name, idea: wgtune_shaders::idea(name).expect("the laws run every rung") };
    K::SHADERS.iter().map(|shader| rung(shader.source)).collect()
}
