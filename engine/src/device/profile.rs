//! Timing dispatches: by the device's own timestamps where it has them, by the host's clock where not.

use std::time::Instant;

use super::Device;
use crate::error::Result;
use crate::kernel::Cost;
use crate::recording::Command;

/// One dispatch as it was timed.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The stem of the WGSL file that ran; `twin` on the CPU, nothing on a device that is dry.
    pub shader: &'static str,
    /// The parameters, printed.
    pub params: String,
    /// When it began, in seconds since the first dispatch of the profile.
    pub start: f64,
    /// How long it took, in seconds; 0 on a device that is dry.
    pub seconds: f64,
    /// The work it did.
    pub cost: Cost,
}

/// What [`Device::profile`] gathers.
#[derive(Default)]
pub(crate) struct Profile {
    pub spans: Vec<Span>,
    begun: Option<Instant>,
    first_tick: Option<u64>,
}

impl Profile {
    /// Adds a dispatch timed by the host's clock.
    pub fn add_host(&mut self, begun: Instant, span: Span) {
        let seconds = begun.elapsed().as_secs_f64();
        let start = begun.duration_since(*self.begun.get_or_insert(begun)).as_secs_f64();
        self.spans.push(Span { start, seconds, ..span });
    }

    /// Adds a dispatch timed by the device's clock, whose ticks are `period` nanoseconds.
    pub fn add_device(&mut self, ticks: [u64; 2], period: f64, span: Span) {
        let first = *self.first_tick.get_or_insert(ticks[0]);
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 * period * 1e-9;
        self.spans.push(Span { start: seconds(first, ticks[0]), seconds: seconds(ticks[0], ticks[1]), ..span });
    }
}

impl Span {
    /// A dispatch that has not been timed.
    pub(crate) fn of(command: &Command, shader: &'static str) -> Span {
        let params = match command {
            Command::Dispatch { kernel, params, .. } => (kernel.describe)(bytemuck::cast_slice(params)),
            Command::Fused { chain, .. } => {
                let names: Vec<&str> = chain.kernels().map(|(kernel, _)| kernel.name).collect();
                format!("{} elements: {}", chain.elements, names.join(", "))
            }
            Command::Group { group, .. } => {
                let of_member = |params: &[u32]| (group.kernel.describe)(bytemuck::cast_slice(params));
                group.members().map(|member| of_member(&member.params)).collect::<Vec<_>>().join("; ")
            }
            _ => String::new(),
        };
        Span { kernel: command.name(), shader, params, start: 0.0, seconds: 0.0, cost: command.cost() }
    }
}

impl Device {
    /// Runs `work`, and all that it recorded, with every dispatch timed: [`start_profile`](Self::start_profile), the work, and
    /// [`finish_profile`](Self::finish_profile).
    ///
    /// # Errors
    /// What the device met.
    pub fn profile<T>(&self, work: impl FnOnce() -> T) -> Result<(T, Vec<Span>)> {
        self.start_profile()?;
        let result = work();
        self.finish_profile().map(|spans| (result, spans))
    }

    /// Times every dispatch from here on. What nobody reads is not computed: hold on to results that are to be timed. On a GPU
    /// each dispatch gets a pass of its own, so that a profiled run is slower than the sum of its spans; a device without
    /// timestamps waits for each dispatch.
    ///
    /// # Errors
    /// What the device met before.
    pub fn start_profile(&self) -> Result<()> {
        self.wait()?;
        self.executor().profile = Some(Profile::default());
        Ok(())
    }

    /// Waits for everything recorded, and gives what was timed since [`start_profile`](Self::start_profile), in order.
    ///
    /// # Errors
    /// What the device met.
    pub fn finish_profile(&self) -> Result<Vec<Span>> {
        let outcome = self.wait();
        let profile = self.executor().profile.take().unwrap_or_default();
        outcome.map(|()| profile.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::adapters;
    use crate::ops;

    #[test]
    fn every_dispatch_is_timed_in_order_and_only_while_asked() {
        let mut devices = vec![Device::cpu()];
        if !adapters().is_empty() {
            devices.push(Device::open("gpu").unwrap());
        }
        for device in devices {
            let x = device.tensor(&vec![0.5; 1 << 16], [1 << 8, 1 << 8]);
            let work = || (ops::matmul(&x, &x), ops::exp(&x));
            drop(work());
            let (_held, spans) = device.profile(work).unwrap();
            assert_eq!(spans.iter().map(|span| span.kernel).collect::<Vec<_>>(), ["matmul", "unary"], "{device:?}");
            assert_eq!(spans[0].cost.flops, 2 << 24);
            assert!(spans.iter().all(|span| span.seconds > 0.0 && !span.shader.is_empty()), "{spans:?}");
            assert!(spans[1].start >= spans[0].start + spans[0].seconds, "{spans:?}");
        }
    }
}
