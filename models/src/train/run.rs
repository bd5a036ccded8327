//! The folder of a run: what the run was started with, who writes it, and its metrics.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{May, Record};
use super::tensorboard::Events;
use crate::error::{Error, Result};
use crate::formats::files::{self, append_bytes, names, read_text, remove, target, write_bytes};
use crate::model::is_model_file;
use crate::peft::ADAPTER_FILES;

/// The name of the folder that a run's checkpoint is in.
pub const CHECKPOINT: &str = "checkpoint";
/// The name of the folder that its events for TensorBoard are in.
const TENSORBOARD: &str = "tensorboard";
/// The name of the file with a line an update.
pub const METRICS: &str = "metrics.jsonl";
/// The name of the file with what the model said on the way.
pub const SAMPLES: &str = "samples.jsonl";
/// The name of the file with a line an evaluation.
pub const EVALUATIONS: &str = "evaluations.jsonl";
/// The name of the file with what a reference finds of the data.
pub const REFERENCE: &str = "reference.safetensors";
/// What the run was started with; it marks the folder as a run's.
const RUN: &str = "run.toml";
/// Held locked by the process that writes the folder. It stays there: removing it would let two in.
const LOCK: &str = "run.lock";

/// How a run begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// In a folder that is new, empty, or of a run that made no step.
    New,
    /// In place of what a run, or another command of wgtune, left in the folder.
    Over,
    /// From the checkpoint in the folder, or from the start where there is none yet.
    Resumed,
}

/// A run's folder, locked: no other run can write it until this is dropped.
pub struct RunDirectory {
    path: PathBuf,
    record: Record,
    changes: Vec<String>,
    /// How many checkpoints stay.
    kept: usize,
    _lock: File,
}

impl RunDirectory {
    /// The folder at `path`, made if it is not there, for a run with this record. A run that is resumed has the options and the
    /// hashes that it began with, but for what may be others.
    ///
    /// # Errors
    /// A folder that cannot be made, that another run is writing, or that holds anything not of this run; options other than
    /// those the run began with, naming the first that differs.
    pub fn open(path: &Path, begin: Begin, record: Record, may: &May) -> Result<RunDirectory> {
        fs::create_dir_all(path).map_err(Error::io(path))?;
        // Before the lock, so that nothing is left in a folder that is refused, and again once no other run can come between.
        check_content(path, begin)?;
        let lock = lock(path)?;
        check_content(path, begin)?;
        let mut run = RunDirectory { path: path.to_path_buf(), record, changes: Vec::new(), kept: 1, _lock: lock };
        match saved(path)? {
            Some(saved) if begin == Begin::Resumed => {
                run.changes = saved.changes(&run.record, may).map_err(|difference| {
                    let message = format!("the run in {} {difference}: resume with what it began with", path.display());
                    Error::Data { message }
                })?;
                run.mark(has_results(&saved))?;
            }
            _ => {
                for name in names(path)?.iter().filter(|name| *name != LOCK) {
                    remove(&path.join(name))?;
                }
                run.mark(false)?;
                write_bytes(&path.join(METRICS), b"")?;
            }
        }
        Ok(run)
    }

    /// Says that the files of a model or an adapter that come into the folder from here on are this run's.
    ///
    /// # Errors
    /// A full disk.
    pub fn begin_results(&mut self) -> Result<()> {
        self.mark(true)
    }

    fn mark(&mut self, has_results: bool) -> Result<()> {
        if let Some(run) = &mut self.record.run {
            run.has_results = has_results;
        }
        write_bytes(&self.path.join(RUN), self.record.text().as_bytes())
    }

    /// Keeps so many checkpoints, at least one: those before the last as `checkpoint-STEP`. A run goes on from one of these once it
    /// stands in the last one's place.
    pub fn keep(&mut self, checkpoints: usize) {
        self.kept = checkpoints.max(1);
    }

    /// How many checkpoints stay.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What of a resumed run's options is another than it was, as `steps 30 -> 60`.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Adds a line to one of the files of lines, in one write.
    ///
    /// # Errors
    /// A full disk; the file is then as it was.
    pub(super) fn append(&self, name: &str, line: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(line).expect("figures and texts are JSON");
        line.push(b'\n');
        append_bytes(&self.path.join(name), &line)
    }

    /// The lines of such a file, as far as they are whole; none where there is no file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn lines(&self, name: &str) -> Result<Vec<Value>> {
        let path = self.path.join(name);
        let text = if path.exists() { read_text(&path)? } else { String::new() };
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The events for TensorBoard.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) fn events(&self) -> Result<Events> {
        let folder = self.path.join(TENSORBOARD);
        let names = if folder.exists() { names(&folder)? } else { Vec::new() };
        Ok(Events::new(&folder, &names))
    }

    /// Leaves those lines of a file whose `step` is kept.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(super) fn cut(&self, name: &str, keeps: impl Fn(usize) -> bool) -> Result<()> {
        #[derive(Deserialize)]
        struct Line {
            step: usize,
        }
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(());
        }
        let text = read_text(&path)?;
        let is_kept = |line: &&str| serde_json::from_str(line).is_ok_and(|Line { step }| keeps(step));
        let kept: String = text.split_inclusive('\n').filter(is_kept).collect();
        write_bytes(&path, kept.as_bytes())
    }
}

/// Checks that a folder is one that a run, or a command that writes a model, may begin in so.
///
/// # Errors
/// A folder that cannot be read, and one that holds something that is not to be replaced, naming it.
pub fn check_content(path: &Path, begin: Begin) -> Result<()> {
    let names = match path.exists() {
        true => names(path)?,
        false => return Ok(()),
    };
    // Options that somebody keeps in the folder, under the same name, are no run's.
    let is_somebodys = |name: &OsStr| name == RUN && !matches!(saved(path), Ok(Some(_)));
    // What a run leaves that ended before its first step.
    let no_metrics = || fs::metadata(path.join(METRICS)).is_ok_and(|metadata| metadata.len() == 0);
    let is_nothing = |name: &OsStr| {
        let left = matches!(name.to_str(), Some(RUN | LOCK | REFERENCE | ".run.toml.partial"))
            || ([METRICS, EVALUATIONS, SAMPLES].into_iter().any(|own| name == own) && no_metrics());
        left && !is_somebodys(name)
    };
    let run = if begin == Begin::Resumed { saved(path)? } else { None };
    let refused = match (begin, run) {
        (Begin::Over, _) => names.iter().find(|name| !is_written_here(name) || is_somebodys(name)),
        (_, Some(run)) if has_results(&run) => None,
        (_, Some(_)) => names.iter().find(|name| name.to_str().is_some_and(is_result)),
        (Begin::New | Begin::Resumed, None) => names.iter().find(|name| !is_nothing(name)),
    };
    let Some(name) = refused else { return Ok(()) };
    let expected = match begin {
        Begin::New => "expected a new or an empty folder",
        Begin::Over => "which is nothing that wgtune writes; expected another folder, or one without it",
        Begin::Resumed => "which is no run's own; expected the folder of a run, or an empty one",
    };
    let name = name.to_string_lossy();
    Err(Error::Data { message: format!("{} is not empty: it holds {name}, {expected}", path.display()) })
}

/// Checks that no run is writing a folder.
///
/// # Errors
/// One that a run is writing.
pub fn check_idle(path: &Path) -> Result<()> {
    if path.join(LOCK).exists() { lock(path).map(drop) } else { Ok(()) }
}

fn is_written_here(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let name = target(name);
    [CHECKPOINT, TENSORBOARD, METRICS, EVALUATIONS, SAMPLES, REFERENCE, RUN, LOCK].contains(&name)
        || step_of(name).is_some()
        || is_result(name)
}

/// The step of an earlier checkpoint, by its name.
pub(super) fn step_of(name: &str) -> Option<usize> {
    name.strip_prefix(CHECKPOINT)?.strip_prefix('-')?.parse().ok()
}

fn is_result(name: &str) -> bool {
    ADAPTER_FILES.contains(&name) || is_model_file(name)
}

/// The record of the run in a folder, if there is one.
fn saved(path: &Path) -> Result<Option<Record>> {
    let path = path.join(RUN);
    let record = if path.exists() { Some(Record::open(&path)?) } else { None };
    Ok(record.filter(|record| record.run.is_some()))
}

fn has_results(record: &Record) -> bool {
    record.run.as_ref().is_some_and(|run| run.has_results)
}

/// The right to write a folder, until it is dropped.
///
/// # Errors
/// A folder that another run is writing.
pub fn lock(path: &Path) -> Result<File> {
    files::lock(&path.join(LOCK))?.ok_or_else(|| {
        let message = format!("another run is writing {}: expected a folder of this run's own", path.display());
        Error::Data { message }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn open(path: &Path, begin: Begin, options: Value) -> Result<RunDirectory> {
        let record = Record::new("sft", options.as_object().unwrap().clone(), Map::new());
        RunDirectory::open(path, begin, record, &May { rise: &["steps"], differ: &["device"] })
    }

    #[track_caller]
    fn refused(opened: Result<RunDirectory>, expected: &[&str]) {
        let message = opened.err().expect("refused").to_string();
        assert!(expected.iter().all(|words| message.contains(words)), "{message}");
    }

    #[test]
    fn a_folder_with_anything_else_in_it_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        refused(open(folder.path(), Begin::New, json!({})), &["it holds notes.txt", "expected a new or an empty folder"]);
        refused(open(folder.path(), Begin::Over, json!({})), &["it holds notes.txt", "nothing that wgtune writes"]);
        refused(open(folder.path(), Begin::Resumed, json!({})), &["it holds notes.txt", "no run's own"]);
        assert_eq!(names(folder.path()).unwrap(), ["notes.txt"]);
    }

    #[test]
    fn what_a_run_left_is_replaced_only_where_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), Begin::New, json!({"seed": 1})).unwrap());
        for name in ["adapter_config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json"]
        {
            fs::write(folder.path().join(name), "old").unwrap();
        }
        refused(open(folder.path(), Begin::New, json!({"seed": 1})), &["it holds adapter_config.json"]);
        drop(open(folder.path(), Begin::Over, json!({"seed": 2})).unwrap());
        assert_eq!(names(folder.path()).unwrap(), [METRICS, LOCK, RUN]);
    }

    #[test]
    fn a_model_that_came_into_the_folder_of_a_run_is_not_the_runs() {
        let folder = tempfile::tempdir().unwrap();
        let run = open(folder.path(), Begin::New, json!({})).unwrap();
        drop(run);
        fs::write(folder.path().join("config.json"), "somebody's").unwrap();
        refused(open(folder.path(), Begin::Resumed, json!({})), &["it holds config.json", "no run's own"]);
        fs::remove_file(folder.path().join("config.json")).unwrap();
        let mut run = open(folder.path(), Begin::Resumed, json!({})).unwrap();
        run.begin_results().unwrap();
        fs::write(folder.path().join("config.json"), "the run's").unwrap();
        drop(run);
        open(folder.path(), Begin::Resumed, json!({})).unwrap();
    }

    #[test]
    fn options_that_somebody_keeps_in_the_folder_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RUN), "steps = 3\n").unwrap();
        for begin in [Begin::New, Begin::Over, Begin::Resumed] {
            refused(open(folder.path(), begin, json!({})), &["it holds run.toml"]);
        }
        assert_eq!(fs::read(folder.path().join(RUN)).unwrap(), b"steps = 3\n");
    }

    #[test]
    fn a_folder_that_a_run_writes_is_closed_to_others_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let run = open(folder.path(), Begin::New, json!({})).unwrap();
        refused(open(folder.path(), Begin::Resumed, json!({})), &["another run is writing"]);
        drop(run);
        open(folder.path(), Begin::Resumed, json!({})).unwrap();
    }

    #[test]
    fn only_what_may_rise_may_change() {
        let folder = tempfile::tempdir().unwrap();
        let options = |steps: u64, rank: u64| json!({"steps": steps, "rank": rank, "device": format!("gpu:{steps}")});
        drop(open(folder.path(), Begin::New, options(30, 8)).unwrap());
        refused(open(folder.path(), Begin::Resumed, options(30, 4)), &["`rank` 8, and now it is 4"]);
        refused(open(folder.path(), Begin::Resumed, options(20, 8)), &["`steps` 30, and now it is 20"]);
        let raised = open(folder.path(), Begin::Resumed, options(60, 8)).unwrap();
        assert_eq!(raised.changes(), ["steps 30 -> 60"]);
        drop(raised);
        refused(open(folder.path(), Begin::Resumed, options(30, 8)), &["`steps` 60, and now it is 30"]);
    }
}
