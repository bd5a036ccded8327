//! What the kernels want of Vulkan that wgpu does not ask of it.

mod inspect;

use std::ffi::CStr;

use ash::khr::pipeline_executable_properties as executables;
use ash::vk;
use wgpu::hal::api::Vulkan;
use wgpu::hal::vulkan::{Adapter, PhysicalDeviceFeatures};

pub(super) use inspect::Inspector;

/// Opens a device whose driver does not check that shaders stay within buffers: wgpu asks it to for every device, which on some costs
/// instructions at each load and store (NVK: 230 instead of 105 for AdamW). `None` where the adapter is none of Vulkan's. One that
/// `inspects` can also be asked what its compiler makes of kernels.
///
/// # Errors
/// A sentence, where it does not open, or tells nothing.
#[allow(unsafe_code)] // wgpu's own way to more, and less, of Vulkan than it asks for
pub(super) fn open(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor,
    inspects: bool,
) -> Option<Result<(wgpu::Device, wgpu::Queue), String>> {
    // SAFETY: the adapter is only read and opened, and not destroyed.
    let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
    if inspects && !hal.physical_device_capabilities().supports_extension(executables::NAME) {
        let expected = "expected a driver with VK_KHR_pipeline_executable_properties";
        return Some(Err(format!("it does not tell what it compiles to: {expected}")));
    }
    let wgpu::DeviceDescriptor { required_features, required_limits, memory_hints, .. } = descriptor;
    let mut extensions = hal.required_device_extensions(*required_features);
    let mut features = hal.physical_device_features(&extensions, *required_features);
    extensions.extend(inspects.then_some(executables::NAME));
    let opened = create(&hal, &extensions, &mut features, inspects).map_err(|error| error.to_string()).and_then(|raw| {
        // SAFETY: the device is of this adapter, with these extensions and the features that they and wgpu's ask for, but for the checks
        // of bounds. wgpu counts on those where a shader is not trusted, and such a device is given none (`Driver::checked`).
        let opened = unsafe {
            hal.device_from_raw(raw, None, &extensions, *required_features, required_limits, memory_hints, QUEUE_FAMILY, 0)
        };
        opened.map_err(|error| error.to_string())
    });
    Some(opened.and_then(|opened| {
        // SAFETY: it was opened from this adapter, with these features.
        unsafe { adapter.create_device_from_hal::<Vulkan>(opened, descriptor) }.map_err(|error| error.to_string())
    }))
}

/// The one that wgpu opens devices with.
const QUEUE_FAMILY: u32 = 0;

/// A raw device with these features, but for the checks of bounds.
#[allow(unsafe_code)] // every call of raw Vulkan is
fn create(
    hal: &Adapter,
    extensions: &[&'static CStr],
    features: &mut PhysicalDeviceFeatures,
    inspects: bool,
) -> ash::prelude::VkResult<ash::Device> {
    let core = features.get_core().robust_buffer_access(false);
    let extensions: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(QUEUE_FAMILY).queue_priorities(&[1.0])];
    let mut told = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&extensions);
    let mut info = features.add_to_device_create(info).enabled_features(&core);
    if inspects {
        info = info.push_next(&mut told);
    }
    // SAFETY: each structure of the chain begins with its type, and was given to it as a reference that may be written through. Of the
    // device's own, nothing is asked that it lacks.
    unsafe {
        let mut next = info.p_next.cast_mut().cast::<vk::BaseOutStructure>();
        while let Some(structure) = next.as_mut() {
            if structure.s_type == vk::StructureType::PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT {
                (*next.cast::<vk::PhysicalDeviceRobustness2FeaturesEXT>()).robust_buffer_access2 = vk::FALSE;
            }
            next = structure.p_next;
        }
        hal.shared_instance().raw_instance().create_device(hal.raw_physical_device(), &info, None)
    }
}
