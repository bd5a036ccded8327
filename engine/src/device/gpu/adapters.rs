//! The adapters that there are, and choosing one.

use serde::Serialize;

use crate::error::{Error, Result};

/// What an adapter says of itself.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AdapterInfo {
    /// The adapter's name.
    pub name: String,
    /// The interface through which it is reached: `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: &'static str,
    /// The driver's name.
    pub driver: String,
    /// The driver's version and what else it tells.
    pub driver_info: String,
    /// Discrete, integrated, virtual, software or other.
    pub device_type: &'static str,
    /// Whether it runs on the CPU.
    pub software: bool,
    /// What a kernel may use of it.
    pub limits: AdapterLimits,
    /// What it can do beyond the least that a kernel needs.
    pub features: AdapterFeatures,
    /// What would let it do more.
    pub advice: Option<String>,
}

/// Limits of an adapter that matter to kernels.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AdapterLimits {
    /// Bytes of a tensor that a kernel can be given.
    pub storage_binding_bytes: u64,
    /// Bytes of one buffer.
    pub buffer_bytes: u64,
    /// Buffers that one kernel can be given.
    pub storage_buffers: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory_bytes: u32,
    /// Invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Smallest and largest subgroup, where there are subgroups.
    pub subgroup_sizes: Option<(u32, u32)>,
}

/// Features of an adapter that matter to kernels.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AdapterFeatures {
    /// Arithmetic in half precision.
    pub f16: bool,
    /// Operations across a subgroup.
    pub subgroups: bool,
    /// Timestamps, which profiling needs.
    pub timestamps: bool,
    /// Shapes of the matrix products that a subgroup computes together.
    pub cooperative_matrices: Vec<MatrixShape>,
    /// Small parameters that travel with the command.
    pub immediates: bool,
    /// Compiled kernels can be kept on disk.
    pub pipeline_cache: bool,
}

/// A product [m, k] x [k, n] that a subgroup computes together.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MatrixShape {
    /// Rows of the left side.
    pub m: u32,
    /// Columns of the right side.
    pub n: u32,
    /// Length of the sums.
    pub k: u32,
    /// Type of both sides.
    pub operands: String,
    /// Type of the sums.
    pub accumulator: String,
}

/// All adapters, those reached through OpenGL last. OpenGL is asked only where the environment variable `WGPU_BACKEND` names
/// it, since it shows the same hardware again with less of its features.
pub fn adapters() -> Vec<AdapterInfo> {
    enumerate().iter().map(describe).collect()
}

/// The best adapter that is no software.
pub(crate) fn best_real() -> Option<wgpu::Adapter> {
    best(enumerate()).filter(|adapter| adapter.get_info().device_type != wgpu::DeviceType::Cpu)
}

/// The adapter of `gpu`, which is the best there is, or of `gpu:<index or part of its name>`.
pub(crate) fn find(asked: &str) -> Result<wgpu::Adapter> {
    let mut all = enumerate();
    let no_device = |all: &[wgpu::Adapter]| Error::NoDevice { asked: asked.to_string(), found: listed(all) };
    let Some(which) = asked.strip_prefix("gpu") else { return Err(no_device(&all)) };
    let at = match which.strip_prefix(':') {
        None if !which.is_empty() => return Err(no_device(&all)),
        None => return best(all).ok_or(Error::NoAdapter),
        Some(_) if all.is_empty() => return Err(Error::NoAdapter),
        Some("") => None,
        Some(which) => match which.parse() {
            Ok(index) => Some(index),
            Err(_) => all.iter().position(|adapter| adapter.get_info().name.to_lowercase().contains(&which.to_lowercase())),
        },
    };
    match at {
        Some(index) if index < all.len() => Ok(all.swap_remove(index)),
        _ => Err(no_device(&all)),
    }
}

/// What a device's name says of an adapter.
pub(super) fn title(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!("{} ({})", info.name, info.backend)
}

/// Adapter and driver, to tell whether what was measured on one is true of another.
pub(super) fn version(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!("{} ({}), {} {}", info.name, info.backend, info.driver, info.driver_info)
}

/// Smallest and largest subgroup, where the adapter has subgroups.
pub(super) fn subgroup_sizes(adapter: &wgpu::Adapter) -> Option<(u32, u32)> {
    let info = adapter.get_info();
    adapter.features().contains(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size))
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let native = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let backends = wgpu::Backends::from_env().unwrap_or(native);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        // Without the checks of indirect dispatches, which no kernel uses.
        flags: wgpu::InstanceFlags::empty().with_env(),
        backend_options: wgpu::BackendOptions {
            dx12: wgpu::Dx12BackendOptions { shader_compiler: shader_compiler().with_env(), ..Default::default() },
            ..Default::default()
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut all = pollster::block_on(instance.enumerate_adapters(backends));
    all.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    all.sort_by_key(|adapter| adapter.get_info().backend == wgpu::Backend::Gl);
    all
}

/// The file of the compiler of Direct3D 12 that Windows does not bring along.
const DXC: &str = "dxcompiler.dll";

/// DXC from beside the program, and from nowhere else; where it is not, FXC, which Windows has.
fn shader_compiler() -> wgpu::Dx12Compiler {
    match crate::process::beside(DXC) {
        Some(file) => wgpu::Dx12Compiler::DynamicDxc { dxc_path: file.to_string_lossy().into_owned() },
        None => wgpu::Dx12Compiler::Fxc,
    }
}

/// FXC's shader model, 5.1, has no subgroups; every one of DXC's has.
fn advice(backend: wgpu::Backend, subgroups: bool) -> Option<String> {
    (backend == wgpu::Backend::Dx12 && !subgroups).then(|| {
        format!(
            "compiled by FXC: no f16, no subgroups and slower shaders; put {DXC}, 1.8.2502 or later, beside the program \
             (https://github.com/microsoft/DirectXShaderCompiler/releases)"
        )
    })
}

fn best(all: Vec<wgpu::Adapter>) -> Option<wgpu::Adapter> {
    all.into_iter().min_by_key(|adapter| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, info.backend == wgpu::Backend::Gl)
    })
}

fn listed(all: &[wgpu::Adapter]) -> String {
    let each: Vec<String> = all.iter().enumerate().map(|(index, adapter)| format!("{index}: {}", title(adapter))).collect();
    if each.is_empty() { "no adapter at all".to_string() } else { each.join(", ") }
}

fn describe(adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let subgroup_sizes = subgroup_sizes(adapter);
    AdapterInfo {
        name: info.name,
        backend: info.backend.to_str(),
        driver: info.driver,
        driver_info: info.driver_info,
        device_type: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        software: info.device_type == wgpu::DeviceType::Cpu,
        limits: AdapterLimits {
            storage_binding_bytes: limits.max_storage_buffer_binding_size,
            buffer_bytes: limits.max_buffer_size,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            subgroup_sizes,
        },
        features: AdapterFeatures {
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: subgroup_sizes.is_some(),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            cooperative_matrices: matrices(adapter),
            immediates: features.contains(wgpu::Features::IMMEDIATES),
            pipeline_cache: features.contains(wgpu::Features::PIPELINE_CACHE),
        },
        advice: advice(info.backend, subgroup_sizes.is_some()),
    }
}

pub(super) fn matrices(adapter: &wgpu::Adapter) -> Vec<MatrixShape> {
    let shapes = adapter.cooperative_matrix_properties();
    shapes
        .into_iter()
        .map(|shape| MatrixShape {
            m: shape.m_size,
            n: shape.n_size,
            k: shape.k_size,
            operands: format!("{:?}", shape.ab_type).to_lowercase(),
            accumulator: format!("{:?}", shape.cr_type).to_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_direct3d_without_dxc_is_told_where_to_put_it() {
        let told = advice(wgpu::Backend::Dx12, false).unwrap();
        assert!(["no f16", "no subgroups", DXC, "beside the program"].iter().all(|word| told.contains(word)), "{told}");
        assert_eq!([advice(wgpu::Backend::Dx12, true), advice(wgpu::Backend::Vulkan, false)], [None, None]);
    }

    #[test]
    fn a_device_that_does_not_exist_is_named_beside_those_that_do() {
        for asked in ["gpus", "tpu", "gpu:", "gpu:4096", "gpu:no such card"] {
            match find(asked) {
                Err(error @ Error::NoDevice { .. }) => {
                    let message = error.to_string();
                    assert!(message.contains(asked), "{message}");
                    assert!(adapters().iter().all(|adapter| message.contains(&adapter.name)), "{message}");
                }
                Err(Error::NoAdapter) => assert!(adapters().is_empty()),
                other => panic!("expected no device for {asked:?}, got {other:?}"),
            }
        }
    }
}
