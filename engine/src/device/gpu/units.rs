//! Matrix units: whether an adapter's are used, and how many invocations compute a matrix together there.

use super::adapters;
use super::driver::Driver;
use super::pipelines::compile_text;
use super::vulkan::Inspector;
use crate::device::Config;
use crate::error::Result;
use crate::kernel::Halves;

/// Arc's matrices of f16 were measured at up to a thousand times slower than plain arithmetic, by llama.cpp
/// ([#24404](https://github.com/ggml-org/llama.cpp/issues/24404)).
const INTEL: u32 = 0x8086;

/// What computes products of f16 operands on an open device, as far as the configuration allows any, and the invocations of a subgroup
/// there.
///
/// # Errors
/// What the device met when it was asked how many those are.
pub(super) fn find(
    adapter: &wgpu::Adapter,
    driver: &Driver,
    inspector: Option<&Inspector>,
    config: &Config,
) -> Result<Option<(Halves, u32)>> {
    let (info, features) = (adapter.get_info(), driver.device.features());
    // Only a test asks for a certain shader.
    let for_a_test = config.shader.is_some();
    if !features.contains(wgpu::Features::SHADER_F16) {
        return Ok(None);
    }
    let on_the_cpu = info.device_type == wgpu::DeviceType::Cpu && !for_a_test;
    if features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) && info.vendor != INTEL && !on_the_cpu {
        let offered = adapters::matrices(adapter);
        for (side, shader, halves) in [(16, "subgroup_16", Halves::Matrices16), (8, "subgroup_8", Halves::Matrices8)] {
            let is_offered = offered
                .iter()
                .any(|shape| [shape.m, shape.n, shape.k] == [side; 3] && shape.operands == "f16" && shape.accumulator == "f32");
            if is_offered {
                let invocations = invocations(adapter, driver, inspector, shader)?;
                // Each has at least one row of a matrix, or a quarter of one (`attention_matrices.wgsl`).
                if [side, 2 * side, 4 * side].contains(&invocations) {
                    return Ok(Some((halves, invocations)));
                }
            }
        }
    }
    Ok(for_a_test.then_some((Halves::Emulated, 0)))
}

/// How many invocations compute a matrix together: a driver that has subgroups of several sizes chooses one for each kernel.
fn invocations(adapter: &wgpu::Adapter, driver: &Driver, inspector: Option<&Inspector>, shader: &'static str) -> Result<u32> {
    match (adapters::subgroup_sizes(adapter), inspector) {
        (Some((least, most)), _) if least == most => Ok(most),
        (_, Some(inspector)) => inspector.subgroup(driver, shader),
        (_, None) => asked(driver, shader),
    }
}

/// What a kernel that multiplies matrices finds.
fn asked(driver: &Driver, shader: &'static str) -> Result<u32> {
    /// The product of two matrices of 16 x 16 at most, and a number behind it.
    const MOST: u64 = 4 * (16 * 16 + 1);
    let text = wgtune_shaders::source(shader).map_err(|missing| driver.rejected(shader, missing.to_string()))?;
    let device = &driver.device;
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(shader),
        layout: None,
        module: &compile_text(device, shader, text, driver.checked),
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    driver.check(shader)?;
    let found = driver.buffer(MOST, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC, false)?;
    let read = driver.buffer(MOST, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false)?;
    let entry = wgpu::BindGroupEntry { binding: 0, resource: found.as_entire_binding() };
    let layout = &pipeline.get_bind_group_layout(0);
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &[entry] });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&found, 0, &read, 0, MOST);
    driver.queue.submit([encoder.finish()]);
    let bytes = driver.read(&read, MOST as usize)?;
    let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    // The one number behind the product: each of its elements is a side.
    Ok(numbers.iter().rev().find(|number| **number != 0.0).map_or(0, |number| *number as u32))
}
