//! What a driver's compiler made of a kernel.

use std::collections::BTreeMap;

/// One kernel as a driver's compiler sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Compilation {
    /// Its name; `fused` where several are one, `group` where several dispatches are.
    pub kernel: &'static str,
    /// The stem of the WGSL file.
    pub shader: &'static str,
    /// Values of its `override` constants.
    pub constants: Vec<(String, f64)>,
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Invocations of a subgroup; 0 where the driver does not say.
    pub subgroup: u32,
    /// What the driver tells, by its own names.
    pub statistics: BTreeMap<String, f64>,
}
