//! Times a kernel's shaders on the buffers of the dispatch that first needs them.

use std::time::{Duration, Instant};

use super::Gpu;
use super::encoding::Encoding;
use super::timing::Timing;
use crate::device::tune::Winners;
use crate::device::{Profile, Run, Span};
use crate::error::Result;
use crate::kernel::{Access, AnyKernel, Traits};
use crate::recording::Command;

/// How long a device may be tuned in one run of the program. What is first met later takes the shader that suits by rule.
const BUDGET: Duration = Duration::from_secs(20);
/// Timed dispatches of each shader.
const REPETITIONS: usize = 3;
/// The longest that the shader which suits by rule may take if others are to be tried on a real GPU: one that is twenty times as slow
/// must end before a driver's watchdog, which takes two seconds, ends it.
const LONGEST: f64 = 0.1;
/// By how much a shader must beat the one that suits by rule: less may be noise.
const MARGIN: f64 = 0.95;

/// The tuner of one device.
pub(super) struct Tuner {
    pub winners: Winners,
    spent: Duration,
}

impl Tuner {
    pub fn new(winners: Winners) -> Tuner {
        Tuner { winners, spent: Duration::ZERO }
    }
}

impl Gpu {
    /// Which shader a dispatch takes: the one that was asked for, the fastest known, or the one that suits by rule.
    pub(super) fn shader(&mut self, encoding: &mut Encoding, run: &Run<'_>, command: &Command, offset: u32) -> Result<usize> {
        let Command::Dispatch { kernel, params, .. } = command else { unreachable!("only kernels have shaders") };
        if let Some(known) = self.known_shader(kernel, params) {
            return Ok(known);
        }
        let by_rule = || (kernel.choose)(bytemuck::cast_slice(params), &self.traits);
        let begun = Instant::now();
        // Kept all the same where time is up, so that what runs now runs again when this run is resumed or repeated.
        let has_time = self.tuner.as_ref().is_some_and(|tuner| tuner.spent < BUDGET);
        let fastest = if has_time { self.fastest(encoding, run, kernel, command, offset)? } else { by_rule() };
        if let Some(tuner) = &mut self.tuner {
            tuner.winners.insert(kernel, params, fastest);
            tuner.spent += begun.elapsed();
        }
        Ok(fastest)
    }

    /// The shader that a kernel takes, where none has to be timed for that.
    pub(super) fn known_shader(&mut self, kernel: &'static AnyKernel, params: &[u32]) -> Option<usize> {
        let bytes = bytemuck::cast_slice(params);
        // A bucket is wider than what each shader allows.
        let where_it_can = |shader: usize, traits: &Traits| match (kernel.allows)(bytes, shader, traits) {
            true => shader,
            false => (kernel.choose)(bytes, traits),
        };
        if let Some(forced) = self.forced {
            return Some(where_it_can(forced.min(kernel.shaders.saturating_sub(1)), &self.traits));
        }
        match &mut self.tuner {
            // A kernel that updates a buffer cannot be run twice.
            Some(tuner) if kernel.shaders > 1 && !kernel.access.contains(&Access::Update) => {
                tuner.winners.find(kernel, params).map(|known| where_it_can(known, &self.traits))
            }
            _ => Some((kernel.choose)(bytes, &self.traits)),
        }
    }

    fn fastest(
        &mut self,
        encoding: &mut Encoding,
        run: &Run<'_>,
        kernel: &'static AnyKernel,
        command: &Command,
        offset: u32,
    ) -> Result<usize> {
        let Command::Dispatch { params, .. } = command else { unreachable!("only kernels have shaders") };
        let bytes = bytemuck::cast_slice(params);
        let by_rule = (kernel.choose)(bytes, &self.traits);
        let is_other = |&shader: &usize| shader != by_rule && (kernel.is_candidate)(bytes, shader, &self.traits);
        let others: Vec<usize> = (0..kernel.shaders).filter(is_other).collect();
        if others.is_empty() {
            return Ok(by_rule);
        }
        let mut timing = Timing::new(&self.driver)?;
        let seconds = self.seconds(encoding, &mut timing, run, command, by_rule, offset, f64::MAX)?;
        if seconds > LONGEST && !self.traits.software {
            return Ok(by_rule);
        }
        let (mut best, mut least) = (by_rule, seconds * MARGIN);
        for shader in others {
            let seconds = self.seconds(encoding, &mut timing, run, command, shader, offset, least)?;
            if seconds < least {
                (best, least) = (shader, seconds);
            }
        }
        Ok(best)
    }

    /// The least time of a few dispatches; of one alone, if that takes several times as long as the best so far.
    #[allow(clippy::too_many_arguments)] // all that a dispatch is made of
    fn seconds(
        &mut self,
        encoding: &mut Encoding,
        timing: &mut Timing,
        run: &Run<'_>,
        command: &Command,
        shader: usize,
        offset: u32,
        least: f64,
    ) -> Result<f64> {
        let mut profile = Profile::default();
        // The first one may compile, and warms caches.
        for dispatch in 0..=REPETITIONS {
            let (ready, buffers) = self.pipelines.of_command(&self.driver, &self.traits, command, shader)?;
            let spans: Vec<_> = buffers.iter().map(|buffer| self.memory.span(run, buffer)).collect();
            let group = self.bindings.group(&self.driver, &ready, &spans);
            let span = Span::of(command, ready.source);
            timing.dispatch(&self.driver, encoding, &mut profile, span, |pass| {
                ready.encode(pass, group, self.params.group(), offset)
            })?;
            if dispatch == 0 {
                timing.read(&self.driver, encoding, &mut profile)?;
                if profile.spans.last().is_some_and(|span| span.seconds > 4.0 * least) {
                    break;
                }
                profile.spans.clear();
            }
        }
        timing.read(&self.driver, encoding, &mut profile)?;
        Ok(profile.spans.iter().map(|span| span.seconds).fold(f64::MAX, f64::min))
    }
}
