//! Runs of training from their first line to their report: one, or several that share each pass.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use serde_json::Value;
use wgtune_engine::process;
use wgtune_models::error::Error;
use wgtune_models::train::event::Listener;
use wgtune_models::train::metrics::Evaluation;
use wgtune_models::train::recipe::Recipe;
use wgtune_models::train::record::May;
use wgtune_models::train::run::{CHECKPOINT, RunDirectory};
use wgtune_models::train::schedule::Schedule;
use wgtune_models::train::trainer::{Outcome, Plan, Trainer, advance};
use wgtune_models::wording::counted;

use crate::common::{Stopped, note, on_interrupt};
use crate::config::MAY_DIFFER;
use crate::probes::Probes;
use crate::profile::Profiler;
use crate::report::{Report, Summary, alarms, full_tuning_bytes, share_line};
use crate::training::{Job, Write};
use crate::watch::{Watch, unless};

/// Why something ended.
pub type Failure = Box<dyn std::error::Error>;

/// A job on its way.
struct Run<'a, R> {
    label: String,
    out: PathBuf,
    trainer: Trainer<'a, R>,
    probes: Probes,
    /// What the probes said before the first update.
    scored: Option<Vec<Evaluation>>,
    write: Write<'a>,
    end: Option<Result<Report, Failure>>,
}

/// How a job ended.
pub struct End {
    pub out: PathBuf,
    pub report: Result<Report, Failure>,
}

/// What is said of runs that were stopped.
pub const GO_ON: &str = "; the same command with --resume goes on";

/// Runs jobs whose models are one: validation, training, validation; each then writes what it trained, before another run may have
/// its folder. One that fails does not end the others.
///
/// # Errors
/// A job that cannot begin.
pub fn run<R: Recipe>(jobs: Vec<Job<'_, R>>) -> Result<Vec<End>, Failure> {
    let interrupted = on_interrupt("this step")?;
    let profile = jobs.first().and_then(|job| job.training.profile.clone());
    let mut runs = jobs.into_iter().map(Run::open).collect::<Result<Vec<_>, _>>()?;
    let mut watch = {
        let labels = runs.iter().map(|run| run.label.clone()).collect();
        let sum = |of: fn(&Run<R>) -> usize| runs.iter().map(of).sum();
        let (steps, done) = (sum(|run| run.trainer.plan().steps), sum(|run| run.trainer.step()));
        let first = &runs[0].trainer;
        let profile = profile.map(|file| Profiler::new(&file, first.model().decoder.device(), first.step() + 1)).transpose()?;
        Watch::new(labels, steps, done, profile, &interrupted)
    };
    for (index, run) in runs.iter_mut().enumerate() {
        run.end = run.begin(&interrupted, &mut |event| watch.hear(index, event)).err().map(Err);
    }
    if unless(&interrupted).is_break() {
        // None goes on alone, so that the same batches meet later.
        runs.iter_mut().for_each(|run| run.fail(Error::Interrupted));
    }
    loop {
        for (index, run) in runs.iter_mut().enumerate() {
            if run.end.is_none() && run.trainer.is_done() {
                run.end = Some(run.finish(index, &interrupted, &mut watch));
            }
        }
        let (numbers, mut trainers): (Vec<usize>, Vec<&mut Trainer<R>>) = runs
            .iter_mut()
            .enumerate()
            .filter(|(_, run)| run.end.is_none())
            .map(|(index, run)| (index, &mut run.trainer))
            .unzip();
        if numbers.is_empty() {
            break;
        }
        match advance(&mut trainers, &mut |at, event| watch.hear(numbers[at], event)) {
            Ok(advanced) => {
                let failed = numbers.into_iter().zip(advanced).filter_map(|(index, result)| Some((index, result.err()?)));
                failed.for_each(|(index, error)| runs[index].fail(error));
            }
            Err(error) => {
                let said = error.to_string();
                runs[numbers[0]].fail(error);
                numbers[1..].iter().for_each(|&index| runs[index].end = Some(Err(said.clone().into())));
            }
        }
    }
    watch.finish()?;
    let end = |run: Run<R>| End { out: run.out, report: run.end.expect("every run came to its end") };
    Ok(runs.into_iter().map(end).collect())
}

/// Runs one job.
pub fn one<R: Recipe>(job: Job<'_, R>) -> Result<Report, Failure> {
    run(vec![job])?.remove(0).report
}

impl<'a, R: Recipe> Run<'a, R> {
    /// Opens the run's folder, and goes on from the checkpoint in it where that is wanted.
    fn open(job: Job<'a, R>) -> Result<Run<'a, R>, Failure> {
        let Job { label, training, model, recipe, out, seed, max_length, given, samples, probes, write, .. } = job;
        let plan = training.schedule_of(&recipe, seed, job.default_learning_rate);
        let say = |text: &str| note(format!("{label}{text}"));
        recipe.shares(plan.steps * plan.accumulate).iter().for_each(|share| say(&share_line(share)));
        let rate = &plan.learning_rate;
        let resolved = [
            ("steps", plan.steps.into()),
            // They became steps.
            ("epochs", Value::Null),
            ("max-length", max_length.into()),
            ("learning-rate", rate.peak.into()),
            ("warmup", rate.warmup_steps.into()),
        ];
        let hashes = job.hashes.into_iter().chain(probes.hashes.iter().cloned()).collect();
        let record = given.record(job.chosen.into_iter().chain(resolved), hashes);
        let rise: &[&str] = if rate.schedule == Schedule::Constant { &["steps"] } else { &[] };
        let may = May { rise, differ: &MAY_DIFFER };
        if let Some(file) = &given.file {
            file.record.check_hashes(&file.path, &record, &may)?;
        }
        let mut folder = RunDirectory::open(&out, training.begin(), record, &may)?;
        folder.keep(training.keep);
        let changes = folder.changes().to_vec();
        let steps = plan.steps;
        let mut trainer = Trainer::new(model.clone(), recipe, plan, folder);
        if let Some(samples) = samples {
            trainer.write_samples(samples);
        }
        if !training.no_tensorboard {
            trainer.write_events()?;
        }
        if training.resume {
            changes.iter().for_each(|change| say(&format!("changed: {change}")));
            match trainer.resume()? {
                true => say(&format!("resumed after step {} of {steps}", trainer.step())),
                false => say(&format!("no checkpoint in {}: starting from the beginning", out.display())),
            }
        }
        let (trained, all) = model.sizes();
        let share = 100.0 * trained as f64 / all as f64;
        say(&format!("training {trained} of {all} parameters ({share:.2} %) on {}", model.decoder.device().name()));
        Ok(Run { label, out, trainer, probes, scored: None, write, end: None })
    }

    /// What comes before the updates.
    fn begin(&mut self, interrupted: &AtomicBool, listen: &mut Listener) -> Result<(), Failure> {
        if self.trainer.step() == 0 {
            self.scored = Some(self.score("before", interrupted)?);
        }
        self.trainer.begin(listen).map_err(|error| self.ended(error))
    }

    /// What comes after them: the results, written.
    fn finish(&mut self, index: usize, interrupted: &AtomicBool, watch: &mut Watch) -> Result<Report, Failure> {
        let outcome = self.trainer.end(&mut |event| watch.hear(index, event));
        let Outcome { before, after, best, step: written_step } = outcome.map_err(|error| self.ended(error))?;
        watch.clear();
        let scored = self.score("after", interrupted)?;
        let (probe, unseen) = self.probes.scored(self.scored.take(), scored);
        let (steps, Plan { steps: planned, accumulate, patience, learning_rate, .. }) =
            (self.trainer.step(), self.trainer.plan());
        if steps < *planned {
            let evaluations = counted(*patience, "evaluation");
            note(format!("{}stopped after step {steps} of {planned}: {evaluations} in a row brought nothing better", self.label));
        }
        let (mixture, learning_rate) = (self.trainer.recipe().shares(steps * accumulate), learning_rate.peak);
        self.trainer.run().begin_results()?;
        let model = self.trainer.model();
        (self.write)(model)?;
        let (device, (trained, all)) = (model.decoder.device(), model.sizes());
        Ok(Report {
            out: self.out.clone(),
            device: device.name().to_string(),
            matmul_precision: device.matmul_precision(),
            steps,
            learning_rate,
            trained_parameters: trained,
            all_parameters: all,
            trained_share: trained as f64 / all as f64,
            trained_factor: all as f64 / trained as f64,
            full_tuning_bytes: full_tuning_bytes(model.decoder.parameters().iter().map(|(_, tensor)| tensor.elements()).sum()),
            mixture,
            validation_before: before,
            validation_after: after,
            best_step: best.map(|best| best.step),
            best_validation_loss: best.map(|best| best.loss),
            written_step,
            training: Summary::new(watch.metrics(index)),
            peak_process_bytes: process::memory().map(|memory| memory.peak),
            alarms: alarms(watch.metrics(index)),
            probe,
            unseen,
        })
    }

    fn score(&self, when: &str, interrupted: &AtomicBool) -> Result<Vec<Evaluation>, Failure> {
        self.probes.score(self.trainer.model(), &self.label, when, interrupted).map_err(|error| self.ended(error))
    }

    /// Ends it, if it has not ended.
    fn fail(&mut self, error: Error) {
        if self.end.is_none() {
            self.end = Some(Err(self.ended(error)));
        }
    }

    /// How a run ends that came to this.
    fn ended(&self, error: Error) -> Failure {
        let (step, steps, place) = (self.trainer.step(), self.trainer.plan().steps, self.out.display());
        match error {
            Error::Interrupted if step > 0 => {
                Stopped(format!("stopped after step {step} of {steps}: the checkpoint is in {place}{GO_ON}")).into()
            }
            error => {
                if step > 0 && self.out.join(CHECKPOINT).exists() {
                    note(format!("a checkpoint is in {place}{GO_ON}"));
                }
                error.into()
            }
        }
    }
}
