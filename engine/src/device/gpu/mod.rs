//! GPUs through wgpu: this folder alone names it.

mod adapters;
mod bindings;
mod compiled;
mod driver;
mod encoding;
mod fused;
mod grouped;
mod mapping;
mod memory;
mod params;
mod pipelines;
mod timing;
mod tuning;
mod units;
#[cfg_attr(target_vendor = "apple", path = "no_vulkan.rs")]
mod vulkan;

use rustc_hash::FxHashSet;

use super::{Compilation, Config, HostBuffer, Reading, Run, Span, bytes_of};
use crate::buffer::BufferRef;
use crate::device::tune::Winners;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::Traits;
use crate::passes::{self, Change};
use crate::recording::{Command, Member, Recording};
use bindings::Bindings;
use compiled::Compiled;
use driver::Driver;
use encoding::Encoding;
use memory::Memory;
use params::Params;
use pipelines::Pipelines;
use timing::Timing;
use tuning::Tuner;
use vulkan::Inspector;

pub use adapters::{AdapterFeatures, AdapterInfo, AdapterLimits, MatrixShape, adapters};
pub(crate) use adapters::{best_real, find};
pub(crate) use mapping::Mapping;

/// One adapter, open.
pub(crate) struct Gpu {
    driver: Driver,
    traits: Traits,
    guards: bool,
    memory: Memory,
    pipelines: Pipelines,
    bindings: Bindings,
    params: Params,
    /// The shader to take of every kernel that allows it.
    forced: Option<usize>,
    groups: Option<bool>,
    tuner: Option<Tuner>,
    compiled: Option<Compiled>,
    inspector: Option<Inspector>,
}

impl Gpu {
    /// Opens an adapter; `words` gets what there is to say of its caches.
    pub fn open(adapter: wgpu::Adapter, config: &Config, words: &mut Vec<String>) -> Result<Gpu> {
        let mut driver = Driver::open(&adapter, config)?;
        let binding = &mut driver.limits.max_storage_buffer_binding_size;
        *binding = config.binding_limit.map_or(*binding, |limit| limit.min(*binding));
        let inspector = if config.inspects { Inspector::new(&driver.device) } else { None };
        let units = units::find(&adapter, &driver, inspector.as_ref(), config)?;
        let traits = Traits {
            software: adapter.get_info().device_type == wgpu::DeviceType::Cpu,
            subgroups: adapters::subgroup_sizes(&adapter),
            binding: Some(driver.limits.max_storage_buffer_binding_size as usize),
            workgroup_memory: driver.limits.max_compute_workgroup_storage_size,
            workgroup_invocations: driver.limits.max_compute_invocations_per_workgroup,
            halves: units.map(|(halves, _)| halves),
            unit_invocations: units.map_or(0, |(_, invocations)| invocations),
        };
        let memory = Memory::new(&driver, config.guards)?;
        let (tuner, compiled) = match &config.cache {
            // A guarded kernel is looked at after every run.
            Some(folder) if !config.guards => {
                let (winners, word) = Winners::open(folder, &adapters::version(&adapter));
                words.extend(word);
                (Some(Tuner::new(winners)), Compiled::open(folder, &adapter, &driver))
            }
            _ => (None, None),
        };
        let pipelines = Pipelines::new(&driver, compiled.as_ref().map(|compiled| compiled.cache.clone()));
        let (bindings, params) = (Bindings::default(), Params::default());
        Ok(Gpu {
            driver,
            traits,
            guards: config.guards,
            memory,
            pipelines,
            bindings,
            params,
            forced: config.shader,
            groups: config.groups,
            tuner,
            compiled,
            inspector,
        })
    }

    /// The recording with dispatches that run as one, where a dispatch is worth that.
    pub fn group(&mut self, recording: Recording) -> Recording {
        if !self.groups.unwrap_or(!self.traits.software) {
            return recording;
        }
        let limits = &self.driver.limits;
        // The parameters are a buffer too.
        let of_any_kind = limits.max_buffers_and_acceleration_structures_per_shader_stage - 1;
        let bindings = limits.max_storage_buffers_per_shader_stage.min(of_any_kind).min(pipelines::MOST_BINDINGS) as usize;
        let shader = |kernel, params: &[u32]| {
            let bytes = bytemuck::cast_slice(params);
            let shader = self.known_shader(kernel, params).unwrap_or_else(|| (kernel.choose)(bytes, &self.traits));
            (kernel.allows)(bytes, shader, &self.traits).then_some(shader)
        };
        passes::group(recording, shader, bindings)
    }

    /// Asks the driver's compiler what it makes of a recording's dispatches, each by every shader that is worth a try; runs nothing.
    pub fn ask_compiler(&mut self, recording: &Recording) -> Result<()> {
        let Gpu { driver, traits, inspector: Some(inspector), .. } = self else { return Ok(()) };
        recording.commands.iter().try_for_each(|command| inspector.ask(driver, traits, command))
    }

    pub fn compilations(&mut self) -> Vec<Compilation> {
        self.inspector.as_mut().map(|inspector| std::mem::take(&mut inspector.found)).unwrap_or_default()
    }

    pub fn traits(&self) -> &Traits {
        &self.traits
    }

    /// The most bytes that a kernel can be given at once.
    pub fn largest_binding(&self) -> usize {
        self.driver.limits.max_storage_buffer_binding_size as usize
    }

    pub fn largest_buffer(&self) -> usize {
        self.driver.limits.max_buffer_size as usize
    }

    pub fn name(&self) -> String {
        self.driver.name.clone()
    }

    pub fn bytes(&self, buffer: &BufferRef) -> usize {
        bytes_of(buffer.whole, buffer.dtype)
    }

    /// Encodes the commands in order, submits them, and begins to read back what they ask for.
    pub fn execute(&mut self, mut run: Run<'_>) -> Result<Vec<Reading>> {
        self.driver.in_use = run.in_use;
        self.params.write(&self.driver, &self.pipelines.params_layout, run.recording)?;
        let (mut encoding, mut offset, mut downloads) = (Encoding::default(), 0, Vec::new());
        let mut timing = if run.profile.is_some() { Some(Timing::new(&self.driver)?) } else { None };
        let recording = run.recording;
        for (at, command) in recording.commands.iter().enumerate() {
            self.change(&mut encoding, run.placement.changes_before(at))?;
            match command {
                Command::Upload { to, data } => {
                    self.memory.prepare(&self.driver, &mut encoding, &run, to);
                    self.memory.upload(&self.driver, &mut encoding, &run, to, (**data).as_ref())?;
                }
                Command::Dispatch { params, .. } => {
                    self.dispatch(&mut encoding, &mut run, timing.as_mut(), command, offset)?;
                    offset += Params::stride(&self.driver, params.len());
                }
                Command::Fused { chain, .. } => {
                    self.dispatch(&mut encoding, &mut run, timing.as_mut(), command, offset)?;
                    offset += Params::stride(&self.driver, fused::params_words(chain));
                }
                Command::Group { group, .. } => {
                    self.run_group(&mut encoding, &mut run, timing.as_mut(), command, offset)?;
                    offset += Params::stride(&self.driver, grouped::params_words(group));
                }
                Command::Download { from } if from.elements == 0 => downloads.push(Reading::here(Ok(HostBuffer::zeros(from)))),
                Command::Download { from } => {
                    let mapping = self.memory.download(&self.driver, &mut encoding, &run, from)?;
                    downloads.push(Reading::Coming(from.dtype, Box::new(mapping)));
                }
                Command::Refused { .. } | Command::Free { .. } => {}
            }
        }
        if let (Some(timing), Some(profile)) = (&mut timing, &mut run.profile) {
            timing.read(&self.driver, &mut encoding, profile)?;
        }
        encoding.submit(&self.driver);
        self.driver.check("a recording")?;
        if let Some(tuner) = &mut self.tuner {
            tuner.winners.save();
        }
        Ok(downloads)
    }

    /// Comes back to order after a recording that failed: of its slots only these are still there.
    pub fn recover(&mut self, slots: &FxHashSet<usize>) {
        self.bindings = Bindings::default();
        self.memory.keep(slots);
        self.driver.forget_error();
    }

    pub fn wait(&mut self) -> Result<()> {
        self.driver.wait()
    }

    /// Makes and drops slots.
    fn change(&mut self, encoding: &mut Encoding, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.bindings.forget(changes);
        self.memory.change(&self.driver, encoding, changes)
    }

    /// Encodes a group whose parameters lie at `offset`. Its members run one by one where another shader turns out to be faster for one, or
    /// the driver takes no shader for all.
    fn run_group(
        &mut self,
        encoding: &mut Encoding,
        run: &mut Run<'_>,
        mut timing: Option<&mut Timing>,
        command: &Command,
        offset: u32,
    ) -> Result<()> {
        let Command::Group { group, buffers } = command else { unreachable!("only groups have members") };
        let mut is_known = |member: &Member| self.known_shader(group.kernel, &member.params) == Some(group.shader);
        let mut agree = group.members().all(&mut is_known);
        if !agree {
            agree = true;
            for (number, alone) in group.dispatches(buffers).enumerate() {
                agree &= self.shader(encoding, run, &alone, offset + grouped::offset(number))? == group.shader;
            }
        }
        let shader = if agree { self.pipelines.group(&self.driver, &self.traits, group) } else { None };
        if let Some(shader) = shader {
            return self.encode(encoding, run, timing, command, shader, offset);
        }
        for (number, alone) in group.dispatches(buffers).enumerate() {
            self.dispatch(encoding, run, timing.as_deref_mut(), &alone, offset + grouped::offset(number))?;
        }
        Ok(())
    }

    /// Encodes a dispatch, of one kernel or fused, whose parameters lie at `offset`.
    fn dispatch(
        &mut self,
        encoding: &mut Encoding,
        run: &mut Run<'_>,
        timing: Option<&mut Timing>,
        command: &Command,
        offset: u32,
    ) -> Result<()> {
        let mut shader = 0;
        if let Command::Dispatch { kernel, params, .. } = command {
            shader = self.shader(encoding, run, command, offset)?;
            let params = bytemuck::cast_slice(params);
            if !(kernel.allows)(params, shader, &self.traits) {
                let reason = format!("it cannot run {} here", (kernel.describe)(params));
                return Err(self.driver.rejected(kernel.name, reason));
            }
        }
        self.encode(encoding, run, timing, command, shader, offset)
    }

    /// The same by this shader, of a group too.
    fn encode(
        &mut self,
        encoding: &mut Encoding,
        run: &mut Run<'_>,
        timing: Option<&mut Timing>,
        command: &Command,
        shader: usize,
        offset: u32,
    ) -> Result<()> {
        for written in command.overwrites() {
            self.memory.prepare(&self.driver, encoding, run, &written);
        }
        let (ready, buffers) = self.pipelines.of_command(&self.driver, &self.traits, command, shader)?;
        let spans: Vec<_> = buffers.iter().map(|buffer| self.memory.span(run, buffer)).collect();
        let group = self.bindings.group(&self.driver, &ready, &spans);
        let encode = |pass: &mut wgpu::ComputePass<'static>| ready.encode(pass, group, self.params.group(), offset);
        match (timing, &mut run.profile) {
            (Some(timing), Some(profile)) => {
                timing.dispatch(&self.driver, encoding, profile, Span::of(command, ready.source), encode)?;
            }
            _ => encode(encoding.pass(&self.driver, None)),
        }
        encoding.count(&self.driver, command.cost());
        self.driver.check(command.name())?;
        if self.guards || run.watch.is_some() { self.inspect(encoding, run, command) } else { Ok(()) }
    }

    /// Runs what is encoded, of which `command` is the last, and looks at what that wrote.
    fn inspect(&mut self, encoding: &mut Encoding, run: &mut Run<'_>, command: &Command) -> Result<()> {
        for buffer in command.writes() {
            if self.guards && !self.memory.intact(&self.driver, encoding, run, &buffer)? {
                return Err(self.driver.rejected(command.name(), "it wrote outside its output".to_string()));
            }
            if run.watch.is_some() && buffer.dtype == DType::F32 && buffer.elements > 0 {
                let values: Vec<f32> =
                    self.memory.download(&self.driver, encoding, run, &buffer)?.wait(bytemuck::pod_collect_to_vec)?;
                if let Some(watch) = &mut run.watch {
                    watch.look(command.name(), values.into_iter());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if let Some(compiled) = &self.compiled {
            compiled.save();
        }
    }
}
