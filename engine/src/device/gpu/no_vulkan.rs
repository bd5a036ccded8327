//! What stands in the place of `vulkan/` where there is none.

use super::driver::Driver;
use crate::device::Compilation;
use crate::error::Result;
use crate::kernel::Traits;
use crate::recording::Command;

/// Nothing that there could be one of.
pub(super) struct Inspector {
    pub found: Vec<Compilation>,
}

pub(super) fn open(
    _: &wgpu::Adapter,
    _: &wgpu::DeviceDescriptor,
    _: bool,
) -> Option<std::result::Result<(wgpu::Device, wgpu::Queue), String>> {
    None
}

impl Inspector {
    pub fn new(_: &wgpu::Device) -> Option<Inspector> {
        None
    }

    pub fn subgroup(&self, _: &Driver, _: &'static str) -> Result<u32> {
        Ok(0)
    }

    pub fn ask(&mut self, _: &Driver, _: &Traits, _: &Command) -> Result<()> {
        Ok(())
    }
}
