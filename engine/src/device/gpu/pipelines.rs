//! Compiled kernels: a pipeline for each kernel, shader and set of constants, compiled when it is first needed.

use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::collections::hash_map::Entry;

use wgtune_shaders::Missing;

use super::driver::Driver;
use super::{fused, grouped};
use crate::buffer::BufferRef;
use crate::error::Result;
use crate::kernel::{Access, AnyKernel, Traits};
use crate::recording::{Chain, Command, Group};

/// The most bytes of parameters a kernel may have, or a group with what it has for each member.
pub(super) const PARAMS_BYTES: u64 = (wgtune_shaders::PARAMS_STRIDE * (Group::MOST + 1)) as u64;
/// The most buffers that a group is given: a signature has a bit for each.
pub(super) const MOST_BINDINGS: u32 = 63;

pub(super) struct Pipelines {
    compiled: FxHashMap<Vec<u64>, wgpu::ComputePipeline>,
    fused: FxHashMap<fused::Shape, wgpu::ComputePipeline>,
    of_groups: Vec<wgpu::ComputePipeline>,
    /// Which of those a group takes; none where the driver refused it.
    grouped: FxHashMap<grouped::Shape, Option<usize>>,
    modules: FxHashMap<&'static str, wgpu::ShaderModule>,
    /// Group 0 by which of its buffers are written.
    layouts: FxHashMap<u64, Layout>,
    /// Group 1: the parameters, at an offset that each dispatch gives.
    pub params_layout: wgpu::BindGroupLayout,
    cache: Option<wgpu::PipelineCache>,
    key: Vec<u64>,
}

struct Layout {
    buffers: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A kernel ready to run on given parameters.
pub(super) struct Ready<'a> {
    pub pipeline: &'a wgpu::ComputePipeline,
    pub layout: &'a wgpu::BindGroupLayout,
    /// Names the layout.
    pub signature: u64,
    pub workgroups: [u32; 3],
    /// The stem of its WGSL file.
    pub source: &'static str,
}

impl Ready<'_> {
    /// Encodes the dispatch, whose parameters lie at `offset`.
    pub fn encode(
        &self,
        pass: &mut wgpu::ComputePass<'static>,
        buffers: &wgpu::BindGroup,
        params: &wgpu::BindGroup,
        offset: u32,
    ) {
        pass.set_pipeline(self.pipeline);
        pass.set_bind_group(0, buffers, &[]);
        pass.set_bind_group(1, params, &[offset]);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Pipelines {
    /// `cache` holds what the driver compiled in earlier runs.
    pub fn new(driver: &Driver, cache: Option<wgpu::PipelineCache>) -> Pipelines {
        let params = wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: None,
            },
            count: None,
        };
        let params_layout = driver
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("parameters"), entries: &[params] });
        Pipelines {
            compiled: FxHashMap::default(),
            fused: FxHashMap::default(),
            of_groups: Vec::new(),
            grouped: FxHashMap::default(),
            modules: FxHashMap::default(),
            layouts: FxHashMap::default(),
            params_layout,
            cache,
            key: Vec::new(),
        }
    }

    /// The pipeline and workgroups of a dispatch, and its buffers: by this shader of its kernel, or of what [`group`](Self::group) says.
    pub fn of_command<'a>(
        &'a mut self,
        driver: &Driver,
        traits: &Traits,
        command: &'a Command,
        shader: usize,
    ) -> Result<(Ready<'a>, &'a [BufferRef])> {
        match command {
            Command::Dispatch { kernel, params, buffers } => {
                Ok((self.ready(driver, traits, kernel, bytemuck::cast_slice(params), shader)?, buffers))
            }
            Command::Fused { chain, buffers } => Ok((self.ready_fused(driver, traits, chain, buffers)?, buffers)),
            Command::Group { group, buffers } => Ok((self.ready_grouped(driver, group, shader)?, buffers)),
            _ => unreachable!("only dispatches are dispatched"),
        }
    }

    fn ready(
        &mut self,
        driver: &Driver,
        traits: &Traits,
        kernel: &'static AnyKernel,
        params: &[u8],
        shader: usize,
    ) -> Result<Ready<'_>> {
        if kernel.shaders == 0 {
            return Err(driver.rejected(kernel.name, "it has no shader".to_string()));
        }
        let constants = (kernel.constants)(params, shader, traits);
        self.key.clear();
        self.key.extend([std::ptr::from_ref(kernel) as u64, shader as u64]);
        self.key.extend(constants.iter().map(|(_, value)| value.to_bits()));
        if !self.compiled.contains_key(&self.key) {
            let pipeline = self.compile(driver, kernel, (kernel.source)(shader), &constants)?;
            self.compiled.insert(self.key.clone(), pipeline);
        }
        let workgroups = (kernel.workgroups)(params, shader);
        check_workgroups(driver, kernel.name, workgroups)?;
        let (signature, source) = (signature(kernel.access), (kernel.source)(shader));
        let layout = &self.layouts[&signature].buffers;
        Ok(Ready { pipeline: &self.compiled[&self.key], layout, signature, workgroups, source })
    }

    fn ready_fused(&mut self, driver: &Driver, traits: &Traits, chain: &Chain, buffers: &[BufferRef]) -> Result<Ready<'_>> {
        let source = "fused";
        let shape = fused::Shape::of(chain, buffers, traits);
        if !self.fused.contains_key(&shape) {
            let text = fused::text(&shape, chain);
            let pipeline = self.written(driver, source, text, &chain.access, &fused::constants(chain, traits))?;
            self.fused.insert(shape.clone(), pipeline);
        }
        let workgroups = fused::workgroups(chain, traits);
        check_workgroups(driver, source, workgroups)?;
        let signature = signature(&chain.access);
        let layout = &self.layouts[&signature].buffers;
        Ok(Ready { pipeline: &self.fused[&shape], layout, signature, workgroups, source })
    }

    /// Which of the shaders of groups runs this one. `None` if the driver refuses it.
    pub fn group(&mut self, driver: &Driver, traits: &Traits, group: &Group) -> Option<usize> {
        let shape = grouped::Shape::of(group, traits);
        if let Some(known) = self.grouped.get(&shape) {
            return *known;
        }
        let constants = grouped::constants(group, traits);
        let constants: Vec<_> = constants.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let shader = match self.written(driver, group.source(), shape.text(), &group.access, &constants) {
            Ok(pipeline) => {
                self.of_groups.push(pipeline);
                Some(self.of_groups.len() - 1)
            }
            Err(_) => {
                driver.forget_error();
                None
            }
        };
        self.grouped.insert(shape, shader);
        shader
    }

    fn ready_grouped(&self, driver: &Driver, group: &Group, shader: usize) -> Result<Ready<'_>> {
        let source = group.source();
        let workgroups = grouped::workgroups(group);
        check_workgroups(driver, source, workgroups)?;
        let signature = signature(&group.access);
        let layout = &self.layouts[&signature].buffers;
        Ok(Ready { pipeline: &self.of_groups[shader], layout, signature, workgroups, source })
    }

    /// The pipeline of a shader that is written when it is needed.
    fn written(
        &mut self,
        driver: &Driver,
        name: &str,
        text: std::result::Result<String, Missing>,
        access: &[Access],
        constants: &[(&str, f64)],
    ) -> Result<wgpu::ComputePipeline> {
        let text = text.map_err(|missing| driver.rejected(name, missing.to_string()))?;
        let module = compile_text(&driver.device, name, text, driver.checked);
        driver.check(name)?;
        self.pipeline(driver, name, access, &module, constants)
    }

    fn compile(
        &mut self,
        driver: &Driver,
        kernel: &AnyKernel,
        source: &'static str,
        constants: &[(&'static str, f64)],
    ) -> Result<wgpu::ComputePipeline> {
        assert!(
            kernel.params_size as u64 <= PARAMS_BYTES,
            "[{}] expected at most {PARAMS_BYTES} bytes of parameters",
            kernel.name
        );
        if !self.modules.contains_key(source) {
            let text = wgtune_shaders::source(source).map_err(|missing| driver.rejected(kernel.name, missing.to_string()))?;
            let module = compile_text(&driver.device, source, text, driver.checked);
            driver.check(kernel.name)?;
            self.modules.insert(source, module);
        }
        let module = self.modules[source].clone();
        self.pipeline(driver, kernel.name, kernel.access, &module, constants)
    }

    fn pipeline(
        &mut self,
        driver: &Driver,
        name: &str,
        access: &[Access],
        module: &wgpu::ShaderModule,
        constants: &[(&str, f64)],
    ) -> Result<wgpu::ComputePipeline> {
        let layout = match self.layouts.entry(signature(access)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Layout::new(driver, name, access, &self.params_layout)?),
        };
        let pipeline = driver.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&layout.pipeline),
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants,
                // Kernels write their shared memory before they read it, and clearing it takes software adapters seconds.
                zero_initialize_workgroup_memory: false,
            },
            cache: self.cache.as_ref(),
        });
        driver.check(name)?;
        Ok(pipeline)
    }
}

fn check_workgroups(driver: &Driver, name: &str, workgroups: [u32; 3]) -> Result<()> {
    let most = driver.limits.max_compute_workgroups_per_dimension;
    if workgroups.iter().any(|&count| count > most) {
        return Err(driver.rejected(name, format!("it needs {workgroups:?} workgroups, and {most} is the limit")));
    }
    Ok(())
}

/// A bit for each buffer, set where the kernel writes it, behind a leading one.
fn signature(access: &[Access]) -> u64 {
    access.iter().fold(1, |bits, access| bits << 1 | u64::from(*access != Access::Read))
}

impl Layout {
    fn new(driver: &Driver, name: &str, access: &[Access], params_layout: &wgpu::BindGroupLayout) -> Result<Layout> {
        let entries: Vec<_> = access
            .iter()
            .enumerate()
            .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: *access == Access::Read },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let device = &driver.device;
        let buffers = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&buffers), Some(params_layout)],
            immediate_size: 0,
        });
        driver.check(name)?;
        Ok(Layout { buffers, pipeline })
    }
}

/// A shader's module, with bounds and loops checked at run time or trusted.
#[allow(unsafe_code)]
pub(super) fn compile_text(device: &wgpu::Device, label: &str, text: String, checked: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(Cow::Owned(text)) };
    if checked {
        return device.create_shader_module(descriptor);
    }
    // SAFETY: the text is one of this project's own kernels, never a user's. Each stays inside its buffers and ends: the laws
    // run every one of them with poison round its buffers, and debug builds run the checked modules.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
