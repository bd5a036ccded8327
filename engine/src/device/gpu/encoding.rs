//! Commands on their way to the queue: dispatches share one compute pass until something else must come between them.

use super::driver::Driver;
use crate::kernel::Cost;

/// Work at which what is encoded is sent off. A driver's watchdog ends a submission that takes two seconds; the slowest GPUs make
/// some 250 GFLOP/s of products and move some 25 GB/s, and take half a second for so much.
const ENOUGH: Cost = Cost { flops: 125_000_000_000, bytes: 12_500_000_000 };

#[derive(Default)]
pub(super) struct Encoding {
    // Before the encoder: a pass ends before its encoder goes.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    /// That of the dispatches that are encoded.
    work: Work,
}

/// Work that adds up.
#[derive(Default)]
struct Work(Cost);

impl Work {
    /// Whether it is enough, with so much more.
    fn add(&mut self, cost: Cost) -> bool {
        self.0.flops = self.0.flops.saturating_add(cost.flops);
        self.0.bytes = self.0.bytes.saturating_add(cost.bytes);
        self.0.flops >= ENOUGH.flops || self.0.bytes >= ENOUGH.bytes
    }
}

impl Encoding {
    /// The pass that dispatches go to. `timestamps` are those of a pass that begins here.
    pub fn pass(
        &mut self,
        driver: &Driver,
        timestamps: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) -> &mut wgpu::ComputePass<'static> {
        let encoder = self.encoder.get_or_insert_with(|| driver.device.create_command_encoder(&Default::default()));
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: timestamps };
        self.pass.get_or_insert_with(|| encoder.begin_compute_pass(&descriptor).forget_lifetime())
    }

    /// The encoder, after the dispatches so far.
    pub fn between(&mut self, driver: &Driver) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| driver.device.create_command_encoder(&Default::default()))
    }

    /// Counts the work of a dispatch, and sends everything off where that is enough.
    pub fn count(&mut self, driver: &Driver, cost: Cost) {
        if self.work.add(cost) {
            self.submit(driver);
        }
    }

    /// Sends everything off.
    pub fn submit(&mut self, driver: &Driver) {
        self.work = Work::default();
        self.pass = None;
        if let Some(encoder) = self.encoder.take() {
            driver.queue.submit([encoder.finish()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_adds_up_to_what_is_enough() {
        let (a_third, little) = (Cost { flops: ENOUGH.flops / 3 + 1, bytes: 0 }, Cost { flops: 0, bytes: ENOUGH.bytes / 2 - 1 });
        let mut work = Work::default();
        assert_eq!([a_third, little, a_third, little, a_third].map(|cost| work.add(cost)), [false, false, false, false, true]);
        assert!(Work::default().add(Cost { flops: 0, bytes: u64::MAX }));
    }
}
