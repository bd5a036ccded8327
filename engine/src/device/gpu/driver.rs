//! A wgpu device and its queue, with whatever goes wrong there turned into the engine's errors.

use std::sync::{Arc, Mutex};

use super::mapping::Mapping;
use super::{adapters, vulkan};
use crate::device::{Config, MatmulPrecision};
use crate::error::{Error, Result};

/// The wgpu device; a clone is the same one. Errors reach wgpu's callbacks; [`check`](Self::check) fetches them after a step
/// that can fail.
#[derive(Clone)]
pub(super) struct Driver {
    pub name: String,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    /// Whether shaders are compiled with what keeps them within their buffers and their loops finite.
    pub checked: bool,
    /// Bytes held by tensors, for the message that memory ran out.
    pub in_use: u64,
    faults: Arc<Mutex<Faults>>,
}

/// What the callbacks have heard, the first of each.
#[derive(Default)]
struct Faults {
    error: Option<wgpu::Error>,
    lost: Option<String>,
}

impl Driver {
    pub fn open(adapter: &wgpu::Adapter, config: &Config) -> Result<Driver> {
        let name = adapters::title(adapter);
        let helpful = wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
        let halves = match config.matmul_precision {
            MatmulPrecision::Highest => wgpu::Features::empty(),
            MatmulPrecision::High => wgpu::Features::SHADER_F16 | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
        };
        let limits = adapter.limits();
        let required_features = adapter.features() & (helpful | halves);
        let descriptor = wgpu::DeviceDescriptor {
            required_features,
            required_limits: limits.clone(),
            experimental_features: experimental(required_features),
            ..Default::default()
        };
        // llvmpipe looks after bounds itself, and takes several times as long to compile what checks them once more.
        let checked = cfg!(debug_assertions) && !config.inspects && !name.starts_with("llvmpipe");
        let unchecked = if checked { None } else { vulkan::open(adapter, &descriptor, config.inspects) };
        let opened = unchecked.unwrap_or_else(|| match config.inspects {
            true => Err("it does not tell what it compiles to: expected a driver of Vulkan".to_string()),
            false => pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| error.to_string()),
        });
        let (device, queue) = opened.map_err(|reason| Error::Open { adapter: name.clone(), reason })?;
        let faults = Arc::new(Mutex::new(Faults::default()));
        let heard = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&heard).error.get_or_insert(error);
        }));
        let heard = faults.clone();
        device.set_device_lost_callback(move |_, reason| {
            lock(&heard).lost.get_or_insert(reason);
        });
        Ok(Driver { name, device, queue, limits, checked, in_use: 0, faults })
    }

    /// The first error since the last check, met by `what`.
    pub fn check(&self, what: &str) -> Result<()> {
        let mut faults = lock(&self.faults);
        if let Some(reason) = &faults.lost {
            return Err(Error::Lost { device: self.name.clone(), reason: reason.clone() });
        }
        match faults.error.take() {
            None => Ok(()),
            Some(wgpu::Error::OutOfMemory { source }) => {
                let reason = format!("{what}: {source}");
                Err(Error::OutOfMemory { device: self.name.clone(), in_use: self.in_use, reason })
            }
            Some(error) => Err(self.rejected(what, error.to_string())),
        }
    }

    /// Forgets an error that came of one that was already told.
    pub fn forget_error(&self) {
        lock(&self.faults).error = None;
    }

    pub fn rejected(&self, what: &str, reason: String) -> Error {
        Error::Rejected { device: self.name.clone(), what: what.to_string(), reason }
    }

    /// A new buffer. `bytes` is at least 4, and a multiple of 4.
    pub fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages, mapped_at_creation: bool) -> Result<wgpu::Buffer> {
        if bytes > self.limits.max_buffer_size {
            return Err(Error::TooLarge { device: self.name.clone(), bytes, limit: self.limits.max_buffer_size });
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation });
        self.check(&format!("a buffer of {bytes} bytes"))?;
        Ok(buffer)
    }

    /// Waits until all that was submitted has been done.
    pub fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    /// Calls the callbacks of what has been done.
    pub fn poll(&self, how_long: wgpu::PollType) -> Result<()> {
        let polled = self.device.poll(how_long);
        self.check("the work before a wait")?;
        polled.map(|_| ()).map_err(|error| Error::Lost { device: self.name.clone(), reason: error.to_string() })
    }

    /// The first bytes of a buffer that can be mapped, once all that was submitted has been done.
    pub fn read(&self, buffer: &wgpu::Buffer, bytes: usize) -> Result<Vec<u8>> {
        Mapping::begin(self, buffer.clone(), bytes).wait(<[u8]>::to_vec)
    }
}

/// The permission that wgpu asks for before it hands out an experimental feature.
#[allow(unsafe_code)]
fn experimental(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    if features.intersects(wgpu::Features::all_experimental_mask()) {
        // SAFETY: such a feature may hold bugs that reach undefined behaviour. The one in use, cooperative matrices, is confined to
        // kernels that stay inside their shared memory, and to runs whose user asked for products of f16.
        unsafe { wgpu::ExperimentalFeatures::enabled() }
    } else {
        wgpu::ExperimentalFeatures::disabled()
    }
}

fn lock(faults: &Mutex<Faults>) -> std::sync::MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
