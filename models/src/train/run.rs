//! The folder of a run: what the run was started with, who writes it, and its metrics.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sft::Metrics;
use crate::error::{Error, Result};
use crate::formats::adapter::ADAPTER_FILES;
use crate::formats::files::{read_text, remove, write_bytes};
use crate::formats::model::is_model_file;

/// The name of the folder that a run's checkpoint is in.
pub const CHECKPOINT: &str = "checkpoint";
const METRICS: &str = "metrics.jsonl";
/// What the run was started with; it marks the folder as a run's.
const RUN: &str = "run.json";
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
    options: Value,
    changes: Vec<String>,
    _lock: File,
}

/// What `run.json` holds.
#[derive(Serialize, Deserialize)]
struct Run {
    wgtune: String,
    /// Whether the files of a model or an adapter that are in the folder are this run's.
    has_results: bool,
    options: Value,
}

impl RunDirectory {
    /// The folder at `path`, made if it is not there, for a run with these options: everything that decides its numbers. A run
    /// that is resumed has the options that it began with, but for those in `may_rise`, which may be greater.
    ///
    /// # Errors
    /// A folder that cannot be made, that another run is writing, or that holds anything not of this run; options other than
    /// those the run began with, naming the first that differs.
    pub fn open(path: &Path, begin: Begin, options: &Value, may_rise: &[&str]) -> Result<RunDirectory> {
        fs::create_dir_all(path).map_err(Error::io(path))?;
        // Before the lock, so that nothing is left in a folder that is refused, and again once no other run can come between.
        check_content(path, begin)?;
        let lock = lock(path)?;
        check_content(path, begin)?;
        let mut run = RunDirectory { path: path.to_path_buf(), options: options.clone(), changes: Vec::new(), _lock: lock };
        match saved(path)? {
            Some(saved) if begin == Begin::Resumed => {
                run.changes = changed(path, &saved.options, options, may_rise)?;
                run.mark(saved.has_results)?;
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
    pub fn begin_results(&self) -> Result<()> {
        self.mark(true)
    }

    fn mark(&self, has_results: bool) -> Result<()> {
        let run = Run { wgtune: env!("CARGO_PKG_VERSION").into(), has_results, options: self.options.clone() };
        let text = serde_json::to_string_pretty(&run).expect("options are JSON");
        write_bytes(&self.path.join(RUN), format!("{text}\n").as_bytes())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What of a resumed run's options is another than it was, as `steps 30 -> 60`.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Adds a line to `metrics.jsonl`, in one write.
    ///
    /// # Errors
    /// A full disk; the file is then as it was.
    pub fn append(&self, metrics: &Metrics) -> Result<()> {
        let path = self.path.join(METRICS);
        let mut line = serde_json::to_vec(metrics).expect("numbers are JSON");
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(Error::io(&path))?;
        let length = file.metadata().map_err(Error::io(&path))?.len();
        file.write_all(&line).map_err(|error| {
            // Half a line may have found room.
            let _ = file.set_len(length);
            Error::io(&path)(error)
        })
    }

    /// Leaves the first `steps` lines of `metrics.jsonl`.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn cut_metrics(&self, steps: usize) -> Result<()> {
        let path = self.path.join(METRICS);
        if !path.exists() {
            return Ok(());
        }
        let text = read_text(&path)?;
        let kept: String = text.split_inclusive('\n').take(steps).collect();
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
    // What a run leaves that ended before its first step.
    let no_metrics = || fs::metadata(path.join(METRICS)).is_ok_and(|metadata| metadata.len() == 0);
    let is_nothing = |name: &&OsString| {
        let name = name.to_str();
        matches!(name, Some(RUN | LOCK | ".run.json.partial")) || (name == Some(METRICS) && no_metrics())
    };
    let is_result = |name: &&OsString| name.to_str().is_some_and(is_result);
    let run = if begin == Begin::Resumed { saved(path)? } else { None };
    let refused = match (begin, run) {
        (Begin::Over, _) => names.iter().find(|name| !is_written_here(name)),
        (_, Some(run)) if run.has_results => None,
        (_, Some(_)) => names.iter().find(is_result),
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

fn is_written_here(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    // A write that was killed leaves its target's name between these.
    let unfinished = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial").or(name.strip_suffix(".previous")));
    let name = unfinished.unwrap_or(name);
    [CHECKPOINT, METRICS, RUN, LOCK].contains(&name) || is_result(name)
}

fn is_result(name: &str) -> bool {
    ADAPTER_FILES.contains(&name) || is_model_file(name)
}

fn saved(path: &Path) -> Result<Option<Run>> {
    let run = path.join(RUN);
    if !run.exists() {
        return Ok(None);
    }
    serde_json::from_str(&read_text(&run)?).map(Some).map_err(Error::json(&run))
}

fn names(path: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(path).map_err(Error::io(path))?;
    let mut names: Vec<_> = entries.map(|entry| Ok(entry.map_err(Error::io(path))?.file_name())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK);
    let file = OpenOptions::new().append(true).create(true).open(&name).map_err(Error::io(&name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another run is writing {}: expected a folder of this run's own", path.display());
            Err(Error::Data { message })
        }
        // Not every network's file system has locks.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(Error::io(&name)(error)),
    }
}

/// What differs between the options that a run began with and those that it is to go on with.
fn changed(run: &Path, saved: &Value, now: &Value, may_rise: &[&str]) -> Result<Vec<String>> {
    // Numbers may lose their last bit on the way to text and back: these go the same way.
    let now: Value = serde_json::from_str(&now.to_string()).expect("options are JSON");
    let mut changes = Vec::new();
    for (key, before, after) in differences(saved, &now, "") {
        let rises = before.as_f64().zip(after.as_f64()).is_some_and(|(before, after)| after > before);
        if !(rises && may_rise.contains(&key.as_str())) {
            let run = run.display();
            let message = format!(
                "the run in {run} began with `{key}` {before}, and now it is {after}: resume with the options that it began with"
            );
            return Err(Error::Data { message });
        }
        changes.push(format!("{key} {before} -> {after}"));
    }
    Ok(changes)
}

/// The keys of `now` with another value than in `saved`, and both values.
fn differences<'a>(saved: &'a Value, now: &'a Value, key: &str) -> Vec<(String, &'a Value, &'a Value)> {
    match now {
        Value::Object(keys) if saved.is_object() => {
            let dot = if key.is_empty() { "" } else { "." };
            keys.iter().flat_map(|(name, now)| differences(&saved[name], now, &format!("{key}{dot}{name}"))).collect()
        }
        _ if saved != now => vec![(key.to_string(), saved, now)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(path: &Path, begin: Begin, options: Value) -> Result<RunDirectory> {
        RunDirectory::open(path, begin, &options, &["steps"])
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
        assert_eq!(names(folder.path()).unwrap(), [METRICS, RUN, LOCK]);
    }

    #[test]
    fn a_model_that_came_into_the_folder_of_a_run_is_not_the_runs() {
        let folder = tempfile::tempdir().unwrap();
        let run = open(folder.path(), Begin::New, json!({})).unwrap();
        drop(run);
        fs::write(folder.path().join("config.json"), "somebody's").unwrap();
        refused(open(folder.path(), Begin::Resumed, json!({})), &["it holds config.json", "no run's own"]);
        fs::remove_file(folder.path().join("config.json")).unwrap();
        let run = open(folder.path(), Begin::Resumed, json!({})).unwrap();
        run.begin_results().unwrap();
        fs::write(folder.path().join("config.json"), "the run's").unwrap();
        drop(run);
        open(folder.path(), Begin::Resumed, json!({})).unwrap();
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
        let options = |steps: u64, rank: u64| json!({"steps": steps, "lora": {"r": rank}});
        drop(open(folder.path(), Begin::New, options(30, 8)).unwrap());
        refused(open(folder.path(), Begin::Resumed, options(30, 4)), &["`lora.r` 8, and now it is 4"]);
        refused(open(folder.path(), Begin::Resumed, options(20, 8)), &["`steps` 30, and now it is 20"]);
        let raised = open(folder.path(), Begin::Resumed, options(60, 8)).unwrap();
        assert_eq!(raised.changes(), ["steps 30 -> 60"]);
        drop(raised);
        refused(open(folder.path(), Begin::Resumed, options(30, 8)), &["`steps` 60, and now it is 30"]);
    }
}
