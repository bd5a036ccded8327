//! The parameters of all dispatches of a recording, in one uniform buffer.

use super::driver::Driver;
use super::pipelines::PARAMS_BYTES;
use super::{fused, grouped};
use crate::error::Result;
use crate::recording::{Command, Recording};

#[derive(Default)]
pub(super) struct Params {
    arena: Option<(wgpu::Buffer, wgpu::BindGroup)>,
    bytes: Vec<u8>,
}

impl Params {
    /// Writes the parameters of a recording's dispatches, in their order.
    pub fn write(&mut self, driver: &Driver, layout: &wgpu::BindGroupLayout, recording: &Recording) -> Result<()> {
        self.bytes.clear();
        for command in &recording.commands {
            match command {
                Command::Dispatch { params, .. } => self.bytes.extend_from_slice(bytemuck::cast_slice(params)),
                Command::Fused { chain, .. } => {
                    fused::params(chain).for_each(|word| self.bytes.extend_from_slice(&word.to_le_bytes()));
                }
                Command::Group { group, .. } => grouped::params(group, &mut self.bytes),
                _ => {}
            }
            self.bytes.resize(self.bytes.len().next_multiple_of(alignment(driver)), 0);
        }
        // Every binding is as wide as the widest, so the last one reaches past its own parameters.
        let needed = self.bytes.len() as u64 + PARAMS_BYTES;
        if self.arena.as_ref().is_none_or(|(buffer, _)| buffer.size() < needed) {
            let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
            let buffer = driver.buffer(needed.next_power_of_two(), usage, false)?;
            let binding = wgpu::BufferBinding { buffer: &buffer, offset: 0, size: wgpu::BufferSize::new(PARAMS_BYTES) };
            let entry = wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(binding) };
            let group = driver.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("parameters"),
                layout,
                entries: &[entry],
            });
            self.arena = Some((buffer, group));
        }
        if let Some((buffer, _)) = &self.arena
            && !self.bytes.is_empty()
        {
            driver.queue.write_buffer(buffer, 0, &self.bytes);
        }
        driver.check("parameters")
    }

    /// The group that binds the arena.
    pub fn group(&self) -> &wgpu::BindGroup {
        &self.arena.as_ref().expect("parameters are written before they are bound").1
    }

    /// How far the parameters behind these lie.
    pub fn stride(driver: &Driver, words: usize) -> u32 {
        (words * 4).next_multiple_of(alignment(driver)) as u32
    }
}

fn alignment(driver: &Driver) -> usize {
    driver.limits.min_uniform_buffer_offset_alignment as usize
}
