//! GPUs through wgpu: the only file that names it.

use serde::Serialize;

use super::{Config, HostBuffer, Run, bytes_of};
use crate::error::{Error, Result};
use crate::recording::BufferRef;

/// What an adapter says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterInfo {
    /// The adapter's name.
    pub name: String,
}

/// All adapters.
pub fn adapters() -> Vec<AdapterInfo> {
    Vec::new()
}

pub(crate) struct Gpu {}

pub(crate) fn best_real() -> Option<usize> {
    None
}

pub(crate) fn find(_name: &str) -> Result<usize> {
    Err(Error::NoAdapter)
}

impl Gpu {
    pub fn open(_adapter: usize, _config: &Config) -> Result<Gpu> {
        Err(Error::NoAdapter)
    }
    pub fn name(&self) -> String {
        String::new()
    }
    pub fn bytes(&self, buffer: &BufferRef) -> usize {
        bytes_of(buffer)
    }
    pub fn execute(&mut self, _run: Run<'_>) -> Result<Vec<HostBuffer>> {
        Err(Error::NoAdapter)
    }
    pub fn wait(&mut self) -> Result<()> {
        Ok(())
    }
    pub fn release(&mut self, _idle: &[usize]) {}
}
