//! What a run is asked beside its own task, before and after: whether it forgets, and what comes to tasks that it is not trained on.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use clap::Args;
use serde::Serialize;
use wgtune_models::Result;
use wgtune_models::data::batch::Loader;
use wgtune_models::error::Error;
use wgtune_models::hash::xxh3;
use wgtune_models::peft::Tuned;
use wgtune_models::train::metrics::Evaluation;
use wgtune_models::train::sft::evaluate;

use crate::common::note;
use crate::data::{Prepared, Source, evaluation_loader};
use crate::progress::Progress;
use crate::watch::unless;

/// Which files are scored before and after.
#[derive(Args)]
pub struct Probing {
    /// Score these rows before and after, of any form that --data takes: how much is forgotten of what they are about
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    /// Score the rows of a task that is not trained on before and after (can be given again)
    #[arg(long, value_name = "FILE")]
    unseen: Vec<PathBuf>,
}

/// Files that are scored before and after.
#[derive(Default)]
pub struct Probes {
    /// Whether the first is to show what is forgotten.
    has_forgetting: bool,
    all: Vec<Probe>,
    /// Hashes of the rows, by option.
    pub hashes: Vec<(&'static str, String)>,
}

struct Probe {
    file: PathBuf,
    loader: Loader,
}

/// A file's rows, before and after.
#[derive(Serialize)]
pub struct Scored {
    pub file: PathBuf,
    /// `None` where the run went on from a checkpoint.
    pub before: Option<Evaluation>,
    pub after: Evaluation,
}

impl Probing {
    /// Reads the files and makes examples of them by `prepare`.
    ///
    /// # Errors
    /// A file that `prepare` refuses, or that holds nothing to score.
    pub fn open(&self, batch_size: usize, prepare: impl Fn(&Source) -> Result<Prepared>) -> Result<Probes> {
        let mut probes = Probes { has_forgetting: self.probe.is_some(), ..Probes::default() };
        let mut rows = Vec::new();
        for file in self.probe.iter().chain(&self.unseen) {
            let data = prepare(&Source::of(file.clone(), None)).map_err(|error| match error {
                Error::Data { message } if !message.contains(&*file.to_string_lossy()) => {
                    Error::Data { message: format!("{}: {message}", file.display()) }
                }
                error => error,
            })?;
            rows.push(data.rows);
            probes.all.push(Probe { file: file.clone(), loader: evaluation_loader(data.training, batch_size, data.padding) });
        }
        let unseen = rows.split_off(usize::from(probes.has_forgetting));
        probes.hashes.extend(rows.into_iter().map(|hash| ("probe", hash)));
        if !unseen.is_empty() {
            probes.hashes.push(("unseen", xxh3(unseen)));
        }
        Ok(probes)
    }
}

impl Probes {
    /// How well the model does on each; `label` begins what is said of it.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; what [`evaluate`] meets.
    pub fn score(&self, model: &Tuned, label: &str, when: &str, interrupted: &AtomicBool) -> Result<Vec<Evaluation>> {
        let score = |Probe { file, loader }: &Probe| {
            let mut bar = Progress::new("scoring", loader.batches_per_epoch(), 0);
            let evaluation = evaluate(model, loader, &mut |_, _| {
                bar.advance("");
                unless(interrupted)
            })?;
            drop(bar);
            note(format!("{label}{} {when}: loss {:.4}", file.display(), evaluation.loss));
            Ok(evaluation)
        };
        self.all.iter().map(score).collect()
    }

    /// What is forgotten, where that was asked, and all else.
    pub fn scored(&self, before: Option<Vec<Evaluation>>, after: Vec<Evaluation>) -> (Option<Scored>, Vec<Scored>) {
        let mut before = before.into_iter().flatten();
        let mut scored = |probe: &Probe, after| Scored { file: probe.file.clone(), before: before.next(), after };
        let mut all = self.all.iter().zip(after).map(|(probe, after)| scored(probe, after));
        let forgetting = if self.has_forgetting { all.next() } else { None };
        (forgetting, all.collect())
    }
}

impl Scored {
    /// For a reader.
    pub fn line(&self, what: &str) -> String {
        let Scored { file, before, after } = self;
        let before = before.as_ref().map_or(String::new(), |before| format!("{:.4} -> ", before.loss));
        format!("{what} {}: loss {before}{:.4}", file.display(), after.loss)
    }
}
