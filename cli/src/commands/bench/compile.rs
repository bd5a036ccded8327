//! What the driver's compiler makes of every shader of every kernel, at the shapes that are measured otherwise.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wgtune_engine::Device;
use wgtune_engine::device::Compilation;
use wgtune_models::error::{Error, Result};
use wgtune_models::wording::counted;

use super::results::{DeviceUnderTest, Direction, LeftOut, open};
use super::steps::{Loaded, Step, Subject};
use super::workload::{Workload, gradient_like};
use crate::progress::Progress;
use crate::tables::columns;

/// Everything that was compiled: what `--compile --json` prints, and what `--compile --compare` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compiled {
    /// The program's version.
    pub wgtune: String,
    pub device: DeviceUnderTest,
    pub kernels: Vec<Kernel>,
    /// How many dispatches each step would start.
    #[serde(default)]
    pub steps: Vec<StepDispatches>,
    /// What could not be compiled, and why.
    pub left_out: Vec<LeftOut>,
}

/// How many dispatches a step of a model starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepDispatches {
    pub name: String,
    pub dispatches: usize,
}

/// A shader with a set of constants. What a driver does not tell is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    pub kernel: String,
    /// The stem of its WGSL file.
    pub shader: String,
    pub constants: BTreeMap<String, f64>,
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Invocations of a subgroup.
    pub subgroup: u32,
    /// Of an invocation.
    pub registers: Option<f64>,
    /// Registers, or accesses, as the driver counts, that went to memory for want of registers.
    pub spills: Option<f64>,
    /// Bytes of an invocation's own memory, which lies in the device's.
    pub scratch: Option<f64>,
    /// Bytes of a workgroup's memory.
    pub shared: Option<f64>,
    pub instructions: Option<f64>,
    /// Subgroups that run side by side where one runs, or invocations, as the driver counts.
    pub occupancy: Option<f64>,
    /// All that the driver tells, by its own names.
    pub statistics: BTreeMap<String, f64>,
    /// The first of the workloads that run it.
    pub used_by: String,
}

/// The driver's names of a figure: of RADV, NVK, Honeykrisp and others, which differ. Several that are there are summed.
struct Figure(&'static [&'static str]);

const REGISTERS: Figure = Figure(&["VGPRs", "GPRs", "Registers", "Number of GPRs"]);
const SPILLS: Figure = Figure(&["Spilled SGPRs", "Spilled VGPRs", "Spills", "Spills to memory"]);
const SCRATCH: Figure = Figure(&["Scratch size", "Scratch", "SLM size"]);
const SHARED: Figure = Figure(&["LDS size"]);
const INSTRUCTIONS: Figure = Figure(&["Instructions", "Instruction count"]);
const OCCUPANCY: Figure = Figure(&["Subgroups per SIMD", "Max warps/SM", "Threads"]);

impl Figure {
    fn of(&self, statistics: &BTreeMap<String, f64>) -> Option<f64> {
        let mut found = self.0.iter().filter_map(|name| statistics.get(*name)).peekable();
        found.peek().is_some().then(|| found.sum())
    }
}

/// Has the compiler of the device's driver asked about each of the workloads; nothing is run.
pub fn compile(device: &Device, seed: u64, workloads: &[(Workload, Workload)], bar: &mut Progress) -> Compiled {
    let mut compiled = Compiled {
        wgtune: env!("CARGO_PKG_VERSION").into(),
        device: DeviceUnderTest::of(device),
        kernels: Vec::new(),
        steps: Vec::new(),
        left_out: Vec::new(),
    };
    for (workload, _) in workloads {
        if let Err(error) = record(device, workload, seed) {
            compiled.left_out.push(LeftOut { name: workload.title(), reason: error.to_string() });
        }
        compiled.add_kernels(device, &workload.title());
        bar.advance(&workload.name);
    }
    compiled
}

fn record(device: &Device, workload: &Workload, seed: u64) -> wgtune_engine::Result<()> {
    let inputs = workload.tensors(device, seed);
    let outputs = workload.call(&inputs);
    let _gradients = match workload.direction {
        Direction::Forward => None,
        _ => Some(outputs[0].backward_from(&gradient_like(&outputs[0], seed))),
    };
    device.flush()
}

impl Compiled {
    /// Has it asked about each of these steps too.
    ///
    /// # Errors
    /// What [`Subject::load`] says.
    pub fn add_steps(
        &mut self,
        device: &Device,
        steps: &[Step],
        model: &Subject,
        tokens: usize,
        bar: &mut Progress,
    ) -> Result<()> {
        let mut loaded = Loaded::default();
        for step in steps {
            let name = step.title(&model.name(), tokens);
            let outcome = step.dispatches(loaded.of(*step, model, device)?, tokens);
            self.add_kernels(device, &name);
            match outcome {
                Ok(dispatches) => self.steps.push(StepDispatches { name, dispatches }),
                Err(error) => self.left_out.push(LeftOut { name, reason: error.to_string() }),
            }
            bar.advance(step.name());
        }
        Ok(())
    }

    /// What was compiled since this was asked last.
    fn add_kernels(&mut self, device: &Device, used_by: &str) {
        self.kernels.extend(device.compilations().into_iter().map(|found| Kernel::new(found, used_by)));
        self.kernels.sort_by(|one, other| one.key().cmp(&other.key()));
    }

    /// Reads what `--compile --json` printed.
    pub fn open(path: &Path) -> Result<Compiled> {
        open(path, "wgtune bench --compile --json")
    }

    /// For a reader.
    pub fn lines(&self) -> Vec<String> {
        let shown = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let row = |kernel: &Kernel| {
            vec![
                kernel.name(),
                kernel.subgroup.to_string(),
                shown(kernel.registers),
                shown(kernel.spills),
                shown(kernel.scratch),
                shown(kernel.shared),
                shown(kernel.instructions),
                shown(kernel.occupancy),
            ]
        };
        let head = ["kernel, shader", "subgroup", "registers", "spills", "scratch", "shared", "instructions", "occupancy"];
        let device = format!("{}, {}", self.device.name, self.device.driver);
        let left_out = self.left_out.iter().map(|LeftOut { name, reason }| format!("left out: {name}: {reason}"));
        let spilling = self.kernels.iter().filter(|kernel| kernel.spills_any()).count();
        let summary = format!("{}, of which {spilling} spill", counted(self.kernels.len(), "compiled shader"));
        let table = columns(&head, self.kernels.iter().map(row));
        let steps = self.steps.iter().map(|step| format!("{}: {} dispatches", step.name, step.dispatches));
        [device].into_iter().chain(table).chain([String::new(), summary]).chain(steps).chain(left_out).collect()
    }

    /// An error where a shader spills more than in the earlier run, or is not there and spills, or none is there; a line for each whose
    /// figures differ.
    pub fn compare(&self, file: &Path, before: &Compiled) -> (Vec<String>, Result<()>) {
        let (file, mut lines, mut worse, mut shared) = (file.display(), Vec::new(), Vec::new(), 0);
        let failed = |message: String| Err(Error::Data { message });
        if before.device.name != self.device.name {
            let (was, is) = (&before.device.name, &self.device.name);
            return (lines, failed(format!("{file}: compiled for {was}; expected the same device, {is}")));
        }
        let (was, is) = (&before.device.driver, &self.device.driver);
        if was != is {
            lines.push(format!("the driver is another: {was} then, {is} now"));
        }
        // Chains that were fused share a name: the first is compared with the first.
        let mut earlier: Vec<&Kernel> = before.kernels.iter().collect();
        for kernel in &self.kernels {
            let is_this = |was: &&Kernel| was.key() == kernel.key() && was.used_by == kernel.used_by;
            let Some(was) = earlier.iter().position(is_this).map(|at| earlier.remove(at)) else {
                if kernel.spills_any() {
                    worse.push(kernel.name());
                }
                continue;
            };
            shared += 1;
            let figures = [
                ("registers", was.registers, kernel.registers),
                ("spills", was.spills, kernel.spills),
                ("scratch", was.scratch, kernel.scratch),
                ("shared", was.shared, kernel.shared),
                ("instructions", was.instructions, kernel.instructions),
            ];
            let shown = |value: Option<f64>| value.map_or("-".to_string(), |value| value.to_string());
            let changed: Vec<String> = figures
                .iter()
                .filter(|(_, was, is)| was != is)
                .map(|(name, was, is)| format!("{name} {} -> {}", shown(*was), shown(*is)))
                .collect();
            if !changed.is_empty() {
                lines.push(format!("{}: {}", kernel.name(), changed.join(", ")));
            }
            if kernel.spills > was.spills {
                worse.push(kernel.name());
            }
        }
        let verdict = match (shared, worse.first()) {
            (0, _) => failed(format!("{file}: no shader of the same name and constants: nothing to compare")),
            (_, Some(first)) => {
                let (count, verb) = (counted(worse.len(), "shader"), if worse.len() == 1 { "spills" } else { "spill" });
                failed(format!("{count} {verb} more than in {file}, as {first}"))
            }
            (_, None) => Ok(()),
        };
        (lines, verdict)
    }
}

impl Kernel {
    fn new(found: Compilation, used_by: &str) -> Kernel {
        let of = |figure: &Figure| figure.of(&found.statistics);
        Kernel {
            kernel: found.kernel.into(),
            shader: found.shader.into(),
            constants: found.constants.iter().cloned().collect(),
            workgroup: found.workgroup,
            subgroup: found.subgroup,
            registers: of(&REGISTERS),
            spills: of(&SPILLS),
            scratch: of(&SCRATCH),
            shared: of(&SHARED),
            instructions: of(&INSTRUCTIONS),
            occupancy: of(&OCCUPANCY),
            used_by: used_by.into(),
            statistics: found.statistics,
        }
    }

    fn spills_any(&self) -> bool {
        self.spills.is_some_and(|spills| spills > 0.0) || self.scratch.is_some_and(|scratch| scratch > 0.0)
    }

    /// The kernel, its shader where that has another name, and the constants, or of a group how many.
    fn name(&self) -> String {
        // Those of a group are its members' own, each with its number.
        if self.kernel == "group" {
            return format!("group, {}, {}", self.shader, counted(self.constants.len(), "constant"));
        }
        let constants: Vec<String> = self.constants.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let shader = if self.shader == self.kernel { String::new() } else { format!(", {}", self.shader) };
        let constants = if constants.is_empty() { String::new() } else { format!(" ({})", constants.join(" ")) };
        format!("{}{shader}{constants}", self.kernel)
    }

    fn key(&self) -> (&str, &str, String) {
        (&self.kernel, &self.shader, format!("{:?}", self.constants))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(spills: f64) -> Kernel {
        Kernel {
            kernel: "matmul".into(),
            shader: "matmul_tile_64".into(),
            constants: BTreeMap::from([("DTYPE".into(), 1.0)]),
            workgroup: [256, 1, 1],
            subgroup: 32,
            registers: Some(64.0),
            spills: Some(spills),
            scratch: None,
            shared: None,
            instructions: Some(100.0),
            occupancy: None,
            statistics: BTreeMap::new(),
            used_by: "matmul NT up".into(),
        }
    }

    fn compiled(kernels: Vec<Kernel>) -> Compiled {
        let device = DeviceUnderTest {
            name: "a GPU".into(),
            kind: "discrete".into(),
            driver: "1".into(),
            clock: "device".into(),
            matmul_precision: Default::default(),
        };
        Compiled { wgtune: "0".into(), device, kernels, steps: Vec::new(), left_out: Vec::new() }
    }

    #[test]
    fn a_shader_that_begins_to_spill_is_an_error_and_named() {
        let (before, now) = (compiled(vec![kernel(0.0)]), compiled(vec![kernel(2.0)]));
        let (lines, verdict) = now.compare(Path::new("before.json"), &before);
        assert_eq!(lines, ["matmul, matmul_tile_64 (DTYPE=1): spills 0 -> 2"]);
        assert!(verdict.unwrap_err().to_string().contains("1 shader spills more than in before.json, as matmul, matmul_tile_64"));
        assert!(before.compare(Path::new("now.json"), &now).1.is_ok());
        let new = |spills: f64| Kernel { shader: "matmul_tile_256".into(), ..kernel(spills) };
        let with = |new: Kernel| compiled(vec![kernel(0.0), new]).compare(Path::new("before.json"), &before).1;
        assert!(with(new(0.0)).is_ok() && with(new(2.0)).unwrap_err().to_string().contains("matmul_tile_256"));
        assert!(before.compare(Path::new("none.json"), &compiled(Vec::new())).1.is_err());
        let other = Compiled { device: DeviceUnderTest { name: "another".into(), ..before.device.clone() }, ..before.clone() };
        assert!(before.compare(Path::new("other.json"), &other).1.unwrap_err().to_string().contains("expected the same device"));
    }

    #[test]
    fn figures_go_by_the_names_that_drivers_give_them() {
        let told = |names: &[(&str, f64)]| names.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        assert_eq!(SPILLS.of(&told(&[("Spilled SGPRs", 1.0), ("Spilled VGPRs", 2.0)])), Some(3.0));
        assert_eq!(SPILLS.of(&told(&[("VGPRs", 1.0)])), None);
    }
}
