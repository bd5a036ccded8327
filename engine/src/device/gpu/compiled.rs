//! What the driver compiled, kept on disk from run to run where the backend can hand it out.

use std::path::{Path, PathBuf};

use super::driver::Driver;
use crate::device::tune;

/// The compiled pipelines of one adapter and driver.
pub(super) struct Compiled {
    pub cache: wgpu::PipelineCache,
    file: PathBuf,
    /// Of what was read.
    hash: u64,
}

impl Compiled {
    /// Those in `folder`; `None` where the backend has no pipeline cache.
    pub fn open(folder: &Path, adapter: &wgpu::Adapter, driver: &Driver) -> Option<Compiled> {
        if !driver.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.join(wgpu::util::pipeline_cache_key(&adapter.get_info())?);
        let bytes = tune::read(&file);
        let hash = tune::hash_of(&bytes);
        Some(Compiled { cache: load(&driver.device, bytes.as_deref()), file, hash })
    }

    /// Writes them, if there are others than were read.
    pub fn save(&self) {
        if let Some(bytes) = self.cache.get_data()
            && tune::hash_of(&Some(&bytes)) != self.hash
        {
            tune::write(&self.file, &bytes);
        }
    }
}

/// A cache that starts from what was read.
#[allow(unsafe_code)]
fn load(device: &wgpu::Device, bytes: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("kernels"), data: bytes, fallback: true };
    // SAFETY: the bytes are what `get_data` gave for the adapter and driver whose key names the file; their header is checked
    // against both, and with `fallback` what does not match is dropped.
    unsafe { device.create_pipeline_cache(&descriptor) }
}
