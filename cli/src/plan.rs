//! `--plan`: what a run would take of the device's memory, found by placing its largest update without computing it.

use serde::Serialize;
use wgtune_engine::{DType, process};
use wgtune_models::train::sft::Sft;
use wgtune_models::train::trainer::Plan;
use wgtune_models::train::update::{Progress, Turn, step};
use wgtune_models::wording::counted;

use crate::common::{Outcome, bytes, print_json, print_line};
use crate::runs::Failure;
use crate::training::{Job, MOST_ACCUMULATED, Training};

/// The memory that runs side by side would take, in bytes of tensors.
#[derive(Serialize)]
struct Memory {
    device: String,
    /// At once, at most.
    peak_tensor_bytes: u64,
    /// Parameters that are not trained.
    weight_bytes: u64,
    trained_bytes: u64,
    gradient_bytes: u64,
    /// AdamW's.
    moment_bytes: u64,
    /// The rest of the peak: what the backward pass needs, logits, and what is on the way.
    activation_bytes: u64,
    /// The largest batch of each run.
    batches: Vec<Shape>,
    /// What the machine has left for a device that is its CPU, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    available_bytes: Option<u64>,
    /// What would make it less.
    instead: Vec<Instead>,
}

#[derive(Serialize, Clone, Copy)]
struct Shape {
    rows: usize,
    length: usize,
}

/// About the same updates of less memory.
#[derive(Serialize)]
struct Instead {
    options: String,
    peak_tensor_bytes: u64,
}

/// A run that is planned.
struct Planned<'a> {
    job: Job<'a, Sft>,
    /// With so few batches behind an update that it is quickly made: further ones take no more.
    plan: Plan,
    progress: Progress,
    /// The largest of its batches, and its rows and their length.
    largest: (usize, [usize; 2]),
}

/// Batches behind an update that is made to see what it takes.
const WINDOW: usize = 3;
/// The most batches among which the largest is looked for.
const MOST_BATCHES: usize = 1_000_000;

/// Prints what these runs would take side by side. Their models are on a device that computes nothing.
pub fn print(jobs: Vec<Job<Sft>>, json: bool) -> Outcome {
    let memory = Memory::of(jobs)?;
    if json { print_json(&memory) } else { memory.lines().iter().try_for_each(|line| print_line(line)) }
}

impl Memory {
    fn of(jobs: Vec<Job<Sft>>) -> Result<Memory, Failure> {
        let mut runs: Vec<Planned> = jobs.into_iter().map(Planned::new).collect();
        let device = runs[0].job.model.decoder.device().clone();
        let weights = runs[0].job.model.decoder.parameters().into_iter();
        let is_frozen = |name: &str| !runs[0].job.model.method.trains(name);
        let size = |elements: usize, dtype: DType| (elements * dtype.size()) as u64;
        let weight_bytes =
            weights.filter(|(name, _)| is_frozen(name)).map(|(_, tensor)| size(tensor.elements(), tensor.dtype())).sum();
        let trained = runs.iter().map(|run| run.job.model.sizes().0).sum();
        let trained_bytes = size(trained, DType::F32);
        let shape = |run: &Planned| Shape { rows: run.largest.1[0], length: run.largest.1[1] };
        let batches: Vec<Shape> = runs.iter().map(shape).collect();
        let peak_tensor_bytes = peak(&mut runs)?;
        let known = weight_bytes + 4 * trained_bytes;
        let mut memory = Memory {
            device: device.name().into(),
            peak_tensor_bytes,
            weight_bytes,
            trained_bytes,
            gradient_bytes: trained_bytes,
            moment_bytes: 2 * trained_bytes,
            activation_bytes: peak_tensor_bytes.saturating_sub(known),
            batches,
            available_bytes: if device.is_cpu() { process::available() } else { None },
            instead: Vec::new(),
        };
        let recomputes = runs.iter().any(|run| run.plan.checkpoint_blocks);
        if !recomputes {
            runs.iter_mut().for_each(|run| run.plan.checkpoint_blocks = true);
            memory.instead("--checkpoint-blocks".into(), &mut runs)?;
            runs.iter_mut().for_each(|run| run.plan.checkpoint_blocks = false);
        }
        // Of several runs each has batches of its own.
        if let [run] = &mut runs[..]
            && let Some(accumulate) = run.part()
        {
            let options = format!("--batch-size 1 --accumulate {accumulate}");
            memory.instead(options.clone(), &mut runs)?;
            if !recomputes {
                runs[0].plan.checkpoint_blocks = true;
                memory.instead(format!("{options} --checkpoint-blocks"), &mut runs)?;
            }
        }
        Ok(memory)
    }

    /// Adds what the runs would take as they are now, where that is less.
    fn instead(&mut self, options: String, runs: &mut [Planned]) -> Result<(), Failure> {
        let peak_tensor_bytes = peak(runs)?;
        if peak_tensor_bytes < self.peak_tensor_bytes {
            self.instead.push(Instead { options, peak_tensor_bytes });
        }
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        let batch = |Shape { rows, length }: &Shape| format!("{} of {}", counted(*rows, "row"), counted(*length, "token"));
        let batches = self.batches.iter().map(batch).collect::<Vec<_>>().join(", ");
        let mut lines = vec![format!("{} of tensors at most on {}", bytes(self.peak_tensor_bytes), self.device)];
        for (what, size) in [
            ("frozen weights", self.weight_bytes),
            ("trained parameters", self.trained_bytes),
            ("gradients", self.gradient_bytes),
            ("AdamW's moments", self.moment_bytes),
        ] {
            lines.push(format!("  {what:20} {:>12}", bytes(size)));
        }
        lines.push(format!("  {:20} {:>12} (the largest batch: {batches})", "activations, logits", bytes(self.activation_bytes)));
        lines.extend(
            self.instead
                .iter()
                .map(|Instead { options, peak_tensor_bytes }| format!("{} with {options}", bytes(*peak_tensor_bytes))),
        );
        lines.extend(self.advice());
        lines
    }

    /// Whether it fits, where that is known, and what would make it.
    fn advice(&self) -> Option<String> {
        let available = self.available_bytes?;
        let left = bytes(available);
        if self.peak_tensor_bytes <= available {
            return Some(format!("it fits: {left} are available"));
        }
        Some(match self.instead.iter().find(|instead| instead.peak_tensor_bytes <= available) {
            Some(Instead { options, .. }) => format!("it does not fit: {left} are available; {options} would make it"),
            None => format!("it does not fit: {left} are available; shorter rows (--max-length) take less"),
        })
    }
}

impl<'a> Planned<'a> {
    fn new(job: Job<'a, Sft>) -> Planned<'a> {
        let mut plan = job.training.schedule_of(&job.recipe, job.seed, job.default_learning_rate);
        let progress = Progress::new(&job.model, &plan);
        let largest = job.recipe.training.largest(plan.steps.saturating_mul(plan.accumulate).min(MOST_BATCHES));
        plan.accumulate = plan.accumulate.min(WINDOW);
        Planned { job, plan, progress, largest }
    }

    /// Parts its batches into rows of which as many stand behind an update, where that can be said by options; how many these are.
    fn part(&mut self) -> Option<usize> {
        let Training { batch_size, accumulate, .. } = *self.job.training;
        let parted = self.job.recipe.training.with_batch_size(1);
        let together = batch_size.min(parted.batches_per_epoch()) * accumulate;
        if batch_size == 1 || together > MOST_ACCUMULATED {
            return None;
        }
        self.largest = parted.largest(self.plan.steps.saturating_mul(together).min(MOST_BATCHES));
        self.plan.accumulate = together.min(WINDOW);
        self.job.recipe.training = parted;
        Some(together)
    }
}

/// The most that is held at once by the first updates, which find memory as others left it, and by those with the largest batches.
fn peak(runs: &mut [Planned]) -> Result<u64, Failure> {
    const FIRST: usize = 16;
    let largest: Vec<usize> = runs.iter().map(|run| run.largest.0 / run.plan.accumulate).collect();
    let count = runs.iter().map(|run| run.plan.steps).max().unwrap_or(0).min(FIRST);
    let mut most = 0;
    for update in (0..count).map(Some).chain([None]) {
        let mut turns: Vec<Turn<Sft>> = Vec::new();
        for (run, largest) in runs.iter_mut().zip(&largest) {
            run.progress.step = update.unwrap_or(*largest);
            turns.push(Turn::new(&run.job.model, &run.job.recipe, &run.plan, &mut run.progress));
        }
        for metrics in step(&mut turns)? {
            most = most.max(metrics?.peak_tensor_bytes);
        }
    }
    Ok(most)
}
