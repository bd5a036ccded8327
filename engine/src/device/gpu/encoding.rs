//! Commands on their way to the queue: dispatches share one compute pass until something else must come between them.

use super::driver::Driver;

#[derive(Default)]
pub(super) struct Encoding {
    // Before the encoder: a pass ends before its encoder goes.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
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

    /// Sends everything off.
    pub fn submit(&mut self, driver: &Driver) {
        self.pass = None;
        if let Some(encoder) = self.encoder.take() {
            driver.queue.submit([encoder.finish()]);
        }
    }
}
