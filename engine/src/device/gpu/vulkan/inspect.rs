//! What a driver's compiler makes of kernels: registers, spills, instructions, whatever it tells
//! ([VK_KHR_pipeline_executable_properties](https://docs.vulkan.org/refpages/latest/refpages/source/VK_KHR_pipeline_executable_properties.html)).
//!
//! wgpu does not ask for it, so that kernels are compiled beside it here: of the same WGSL, written by the same naga with the options that
//! wgpu has for a module without checks, and with the same layout.

use std::collections::BTreeMap;

use ash::khr::pipeline_executable_properties as executables;
use ash::vk;
use rustc_hash::FxHashSet;
use wgpu::hal::api::Vulkan;
use wgpu::naga::ShaderStage;
use wgpu::naga::back::{pipeline_constants::process_overrides, spv};
use wgpu::naga::front::wgsl;
use wgpu::naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};
use wgtune_shaders::Missing;

use crate::device::Compilation;
use crate::device::gpu::driver::Driver;
use crate::device::gpu::{fused, grouped};
use crate::device::tune::hash_of;
use crate::error::Result;
use crate::kernel::{Constants, Traits};
use crate::recording::Command;

/// Compiles kernels, and keeps what is told of them.
pub(in crate::device::gpu) struct Inspector {
    /// Keeps the raw device alive.
    _device: wgpu::Device,
    raw: ash::Device,
    functions: executables::Device,
    has_subgroups: bool,
    version: (u8, u8),
    /// Hashes of what was compiled.
    known: FxHashSet<u64>,
    pub found: Vec<Compilation>,
}

/// A kernel as it is compiled.
struct Source {
    kernel: &'static str,
    /// The stem of its WGSL file.
    shader: &'static str,
    text: String,
    /// How many buffers it is given.
    buffers: usize,
    constants: Vec<(String, f64)>,
}

/// What a command may run: each shader of its kernel that is worth a try, or the one that is written for what was fused or grouped.
fn sources(traits: &Traits, command: &Command) -> std::result::Result<Vec<Source>, Missing> {
    match command {
        Command::Dispatch { kernel, params, .. } => {
            let params = bytemuck::cast_slice(params);
            let source = |variant: usize| {
                let shader = (kernel.source)(variant);
                let (text, constants) = (wgtune_shaders::source(shader)?, owned((kernel.constants)(params, variant, traits)));
                Ok(Source { kernel: kernel.name, shader, text, buffers: kernel.access.len(), constants })
            };
            (0..kernel.shaders).filter(|&variant| (kernel.is_candidate)(params, variant, traits)).map(source).collect()
        }
        Command::Fused { chain, buffers } => {
            let text = fused::text(&fused::Shape::of(chain, buffers, traits), chain)?;
            let (buffers, constants) = (chain.access.len(), owned(fused::constants(chain, traits)));
            Ok(vec![Source { kernel: "fused", shader: "fused", text, buffers, constants }])
        }
        Command::Group { group, buffers } => {
            let (text, shader) = (grouped::Shape::of(group, traits).text()?, group.source());
            let constants = grouped::constants(group, traits);
            let mut all = vec![Source { kernel: "group", shader, text, buffers: buffers.len(), constants }];
            for alone in group.dispatches(buffers) {
                all.extend(sources(traits, &alone)?);
            }
            Ok(all)
        }
        _ => Ok(Vec::new()),
    }
}

fn owned(constants: Constants) -> Vec<(String, f64)> {
    constants.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

impl Inspector {
    /// Of a device that [`open`](super::open) opened.
    #[allow(unsafe_code)] // the device behind wgpu's is handed out for what it does not offer
    pub fn new(device: &wgpu::Device) -> Option<Inspector> {
        // SAFETY: nothing of it is destroyed, and a clone of wgpu's device outlives what is taken of it.
        let hal = unsafe { device.as_hal::<Vulkan>() }?;
        let instance = hal.shared_instance().raw_instance();
        // SAFETY: the physical device is of this instance.
        let properties = unsafe { instance.get_physical_device_properties(hal.raw_physical_device()) };
        // As wgpu chooses it.
        let version = match properties.api_version {
            ..vk::API_VERSION_1_2 => (1, 3),
            vk::API_VERSION_1_2..vk::API_VERSION_1_3 => (1, 5),
            vk::API_VERSION_1_3.. => (1, 6),
        };
        Some(Inspector {
            raw: hal.raw_device().clone(),
            functions: executables::Device::new(instance, hal.raw_device()),
            has_subgroups: device.features().contains(wgpu::Features::SUBGROUP),
            _device: device.clone(),
            version,
            known: FxHashSet::default(),
            found: Vec::new(),
        })
    }

    /// Compiles what a command may run, and keeps what is told of it.
    ///
    /// # Errors
    /// A shader that is not valid, or that the driver refuses.
    pub fn ask(&mut self, driver: &Driver, traits: &Traits, command: &Command) -> Result<()> {
        for source in sources(traits, command).map_err(|missing| driver.rejected(command.name(), missing.to_string()))? {
            let constants: Vec<_> = source.constants.iter().map(|(name, value)| (name, value.to_bits())).collect();
            if self.known.insert(hash_of(&(source.kernel, &source.text, constants))) {
                let rejected = |reason: String| driver.rejected(source.shader, reason);
                let (words, workgroup) = self.words(&source).map_err(rejected)?;
                let compiled = self.compile(&words, source.buffers);
                let (subgroup, statistics) = compiled.map_err(|error| rejected(error.to_string()))?;
                let Source { kernel, shader, constants, .. } = source;
                self.found.push(Compilation { kernel, shader, constants, workgroup, subgroup, statistics });
            }
        }
        Ok(())
    }

    /// The invocations of a subgroup of a shader with one buffer and without parameters.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn subgroup(&self, driver: &Driver, shader: &'static str) -> Result<u32> {
        let rejected = |reason: String| driver.rejected(shader, reason);
        let text = wgtune_shaders::source(shader).map_err(|missing| rejected(missing.to_string()))?;
        let source = Source { kernel: shader, shader, text, buffers: 1, constants: Vec::new() };
        let (words, _) = self.words(&source).map_err(rejected)?;
        Ok(self.compile(&words, source.buffers).map_err(|error| rejected(error.to_string()))?.0)
    }

    /// Its SPIR-V, and the invocations of a workgroup.
    fn words(&self, source: &Source) -> std::result::Result<(Vec<u32>, [u32; 3]), String> {
        let module = wgsl::parse_str(&source.text).map_err(|error| error.emit_to_string(&source.text))?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module);
        let info = info.map_err(|error| error.emit_to_string(&source.text))?;
        let constants = source.constants.iter().cloned().collect();
        let entry = (ShaderStage::Compute, "main");
        let (module, info) = process_overrides(&module, &info, Some(entry), &constants).map_err(|error| error.to_string())?;
        let unchecked = BoundsCheckPolicy::Unchecked;
        let options = spv::Options {
            lang_version: self.version,
            flags: spv::WriterFlags::empty(),
            bounds_check_policies: BoundsCheckPolicies {
                index: unchecked,
                buffer: unchecked,
                image_load: unchecked,
                binding_array: unchecked,
            },
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            emit_int_div_checks: false,
            ..spv::Options::default()
        };
        let pipeline = spv::PipelineOptions { shader_stage: entry.0, entry_point: entry.1.into() };
        let words = spv::write_vec(&module, &info, &options, Some(&pipeline)).map_err(|error| error.to_string())?;
        let workgroup = module.entry_points.iter().find(|point| point.name == entry.1);
        Ok((words, workgroup.map_or([0; 3], |point| point.workgroup_size)))
    }

    /// The invocations of a subgroup, and the statistics by the driver's names.
    #[allow(unsafe_code)] // every call of raw Vulkan is
    fn compile(&self, words: &[u32], buffers: usize) -> ash::prelude::VkResult<(u32, BTreeMap<String, f64>)> {
        let raw = &self.raw;
        let binding = |binding: usize, kind| {
            let layout = vk::DescriptorSetLayoutBinding::default().binding(binding as u32).descriptor_type(kind);
            layout.descriptor_count(1).stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let storage: Vec<_> = (0..buffers).map(|at| binding(at, vk::DescriptorType::STORAGE_BUFFER)).collect();
        let params = [binding(0, vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC)];
        let set = |bindings| vk::DescriptorSetLayoutCreateInfo::default().bindings(bindings);
        // SAFETY: the words are valid SPIR-V of a module that was validated; every object is made of others that live here, none is used
        // after it is destroyed, and what an error leaves behind ends with the device.
        unsafe {
            let module = raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(words), None)?;
            let sets =
                [raw.create_descriptor_set_layout(&set(&storage), None)?, raw.create_descriptor_set_layout(&set(&params), None)?];
            let layout = raw.create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&sets), None)?;
            let flags = match self.has_subgroups {
                true => vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE,
                false => vk::PipelineShaderStageCreateFlags::empty(),
            };
            let stage = vk::PipelineShaderStageCreateInfo::default().flags(flags).stage(vk::ShaderStageFlags::COMPUTE);
            let info = vk::ComputePipelineCreateInfo::default()
                .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
                .stage(stage.module(module).name(c"main"))
                .layout(layout);
            let made = raw.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
            let found = made.map_err(|(_, error)| error).and_then(|pipelines| {
                let found = self.statistics(pipelines[0]);
                pipelines.into_iter().for_each(|pipeline| raw.destroy_pipeline(pipeline, None));
                found
            });
            raw.destroy_pipeline_layout(layout, None);
            sets.into_iter().for_each(|set| raw.destroy_descriptor_set_layout(set, None));
            raw.destroy_shader_module(module, None);
            found
        }
    }

    /// What is told of a pipeline; of several executables, as a driver may make of one kernel, the sums.
    #[allow(unsafe_code)] // what is asked of a pipeline is raw Vulkan too
    fn statistics(&self, pipeline: vk::Pipeline) -> ash::prelude::VkResult<(u32, BTreeMap<String, f64>)> {
        let functions = &self.functions;
        // SAFETY: the pipeline was made with its statistics captured, by a device with the feature; a value is read by its own format.
        unsafe {
            let executables = functions.get_pipeline_executable_properties(&vk::PipelineInfoKHR::default().pipeline(pipeline))?;
            let mut all = BTreeMap::new();
            for index in 0..executables.len() {
                let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(index as u32);
                for statistic in functions.get_pipeline_executable_statistics(&info)? {
                    let value = match statistic.format {
                        vk::PipelineExecutableStatisticFormatKHR::BOOL32 => f64::from(statistic.value.b32),
                        vk::PipelineExecutableStatisticFormatKHR::INT64 => statistic.value.i64 as f64,
                        vk::PipelineExecutableStatisticFormatKHR::UINT64 => statistic.value.u64 as f64,
                        _ => statistic.value.f64,
                    };
                    let name = statistic.name_as_c_str().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    *all.entry(name).or_insert(0.0) += value;
                }
            }
            Ok((executables.first().map_or(0, |executable| executable.subgroup_size), all))
        }
    }
}
