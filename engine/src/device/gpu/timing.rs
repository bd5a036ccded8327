//! Timestamps round dispatches.

use std::time::Instant;

use super::driver::Driver;
use super::encoding::Encoding;
use crate::device::{Profile, Span};
use crate::error::Result;

/// Dispatches whose timestamps one query set holds.
const MOST: u32 = wgpu::QUERY_SET_MAX_QUERIES / 2;

/// Times the dispatches of one recording.
pub(super) struct Timing {
    /// `None` where the device has no timestamps.
    queries: Option<Queries>,
    /// Dispatches encoded and not read yet.
    waiting: Vec<Span>,
}

struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Timing {
    pub fn new(driver: &Driver) -> Result<Timing> {
        let has_timestamps = driver.device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let queries = if has_timestamps { Some(Queries::new(driver)?) } else { None };
        Ok(Timing { queries, waiting: Vec::new() })
    }

    /// Encodes one dispatch by `encode` in a pass of its own.
    pub fn dispatch(
        &mut self,
        driver: &Driver,
        encoding: &mut Encoding,
        profile: &mut Profile,
        span: Span,
        encode: impl FnOnce(&mut wgpu::ComputePass<'static>),
    ) -> Result<()> {
        let Some(queries) = &self.queries else {
            encoding.submit(driver);
            driver.wait()?;
            let begun = Instant::now();
            encode(encoding.pass(driver, None));
            encoding.submit(driver);
            driver.wait()?;
            profile.add_host(begun, span);
            return Ok(());
        };
        let first = 2 * self.waiting.len() as u32;
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: &queries.set,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        };
        encoding.between(driver);
        encode(encoding.pass(driver, Some(writes)));
        encoding.between(driver);
        self.waiting.push(span);
        if self.waiting.len() as u32 == MOST { self.read(driver, encoding, profile) } else { Ok(()) }
    }

    /// Runs what is encoded and hands its times to the profile.
    pub fn read(&mut self, driver: &Driver, encoding: &mut Encoding, profile: &mut Profile) -> Result<()> {
        let Some(queries) = self.queries.as_ref().filter(|_| !self.waiting.is_empty()) else { return Ok(()) };
        let (count, bytes) = (2 * self.waiting.len() as u32, 16 * self.waiting.len() as u64);
        let encoder = encoding.between(driver);
        encoder.resolve_query_set(&queries.set, 0..count, &queries.resolved, 0);
        encoder.copy_buffer_to_buffer(&queries.resolved, 0, &queries.readback, 0, bytes);
        encoding.submit(driver);
        let read = driver.read(&queries.readback, bytes as usize)?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&read);
        for (span, ticks) in self.waiting.drain(..).zip(ticks.chunks_exact(2)) {
            profile.add_device([ticks[0], ticks[1]], queries.period, span);
        }
        Ok(())
    }
}

impl Queries {
    fn new(driver: &Driver) -> Result<Queries> {
        let descriptor = wgpu::QuerySetDescriptor { label: Some("profile"), ty: wgpu::QueryType::Timestamp, count: 2 * MOST };
        let (bytes, copies) = (16 * u64::from(MOST), wgpu::BufferUsages::COPY_SRC);
        Ok(Queries {
            set: driver.device.create_query_set(&descriptor),
            resolved: driver.buffer(bytes, wgpu::BufferUsages::QUERY_RESOLVE | copies, false)?,
            readback: driver.buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false)?,
            period: f64::from(driver.queue.get_timestamp_period()),
        })
    }
}
