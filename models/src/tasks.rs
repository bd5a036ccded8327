//! A table of tasks: a folder whose subfolders are adapters of one model, a task each, whatever methods made them. A task's name is its
//! folder's; what is done to one touches no other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::formats::files::{self, recover_directory};
use crate::formats::json::Object;
use crate::formats::safetensors::Weights;
use crate::peft::{self, ADAPTER_FILE, CONFIG_FILE};
use crate::train::run::{Begin, check_content};
use crate::wording::listed;

/// What is in a folder, taken for a table.
pub struct Table {
    path: PathBuf,
    names: Vec<String>,
    stranger: Option<String>,
}

/// A task of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// The method that trained it.
    pub method: String,
    /// How large that was chosen, in words.
    pub size: String,
    /// How many numbers were trained.
    pub trained_parameters: usize,
    /// What it calls its base.
    pub base: Option<String>,
    /// The template that it keeps.
    pub prompt_template: Option<String>,
}

/// Keys of configs that say how large an adapter was chosen, and what stands behind the number, or before it.
const SIZES: [(&str, [&str; 2]); 2] = [("num_virtual_tokens", ["", " virtual tokens"]), ("r", ["rank ", ""])];

/// Checks the name of a task.
///
/// # Errors
/// A sentence, for one that is empty, begins with a dot, or holds anything but letters, digits, -, _ and dots.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    let is_own = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    match !name.is_empty() && !name.starts_with('.') && name.chars().all(is_own) {
        true => Ok(()),
        false => Err("expected a name of letters, digits, -, _ and dots that does not begin with a dot".into()),
    }
}

impl Table {
    /// The table in a folder; one that is not there has no tasks.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn open(path: &Path) -> Result<Table> {
        let mut table = Table { path: path.to_path_buf(), names: Vec::new(), stranger: None };
        if !path.exists() {
            return Ok(table);
        }
        for name in files::names(path)? {
            let shown = name.to_string_lossy().into_owned();
            if let Some(unfinished) = unfinished(&name) {
                recover_directory(&path.join(unfinished))?;
            } else if path.join(&name).join(CONFIG_FILE).exists() && check_name(&shown).is_ok() {
                table.names.push(shown);
            } else if !is_begun(&path.join(&name)) {
                table.stranger.get_or_insert(shown);
            }
        }
        Ok(table)
    }

    /// The names of its tasks, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a folder is a table with tasks, and no adapter itself.
    pub fn is_one(path: &Path) -> bool {
        !path.join(CONFIG_FILE).exists() && path.is_dir() && Table::open(path).is_ok_and(|table| !table.names.is_empty())
    }

    /// The folder of one of its tasks.
    ///
    /// # Errors
    /// [`Error::Data`] where there is none of this name, with those that there are.
    pub fn task(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.display();
        let message = match &self.names[..] {
            names if names.iter().any(|other| other == name) => return Ok(self.path.join(name)),
            _ if !self.path.exists() => format!("there is no folder {path}; expected a table of tasks"),
            [] => format!("{path} has no tasks; expected folders of adapters in it"),
            names => format!("{path} has no task `{name}`; expected one of {}", listed(names)),
        };
        Err(Error::Data { message })
    }

    /// The folder that a task of this name has or would have.
    ///
    /// # Errors
    /// As [`check`](Table::check).
    pub fn place(&self, name: &str) -> Result<PathBuf> {
        self.check().map(|()| self.path.join(name))
    }

    /// Checks that there is nothing but tasks in it.
    ///
    /// # Errors
    /// [`Error::Data`] where the folder holds anything else, naming it.
    pub fn check(&self) -> Result<()> {
        match &self.stranger {
            None => Ok(()),
            Some(stranger) => {
                let path = self.path.display();
                let message = format!("{path} is no table of tasks: it holds {stranger}; expected folders of adapters alone");
                Err(Error::Data { message })
            }
        }
    }

    /// What its tasks are, in the order of their names.
    ///
    /// # Errors
    /// An adapter that cannot be read.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        self.names.iter().map(|name| Task::open(name, &self.path.join(name))).collect()
    }
}

/// The name of what a write that was killed has left under this one.
fn unfinished(name: &OsStr) -> Option<&str> {
    let name = name.to_str()?.strip_prefix('.')?;
    name.strip_suffix(".partial").or(name.strip_suffix(".previous"))
}

/// Whether a folder is that of a run which has not come to its end, or nothing.
fn is_begun(path: &Path) -> bool {
    path.is_dir() && !path.join("config.json").exists() && check_content(path, Begin::Over).is_ok()
}

impl Task {
    /// The task of this name, whose adapter is in this folder.
    ///
    /// # Errors
    /// An adapter that cannot be read.
    pub fn open(name: &str, directory: &Path) -> Result<Task> {
        let (method, _) = peft::method_of(directory)?;
        let config = Object::read(&directory.join(CONFIG_FILE))?;
        let weights = Weights::open_file(&directory.join(ADAPTER_FILE))?;
        let elements = |name: &str| weights.shape(name).map_or(0, |shape| shape.iter().product());
        let mut sizes = Vec::new();
        for (key, [before, behind]) in SIZES {
            sizes.extend(config.size(key)?.map(|size| format!("{before}{size}{behind}")));
        }
        if let Some(config) = config.object("config")? {
            sizes.extend(config.positive("reduction_factor")?.map(|factor| format!("reduction factor {factor}")));
        }
        Ok(Task {
            name: name.into(),
            method: method.name.into(),
            size: sizes.join(", "),
            trained_parameters: weights.names().map(elements).sum(),
            base: config.string("base_model_name_or_path")?,
            prompt_template: peft::template_of(directory)?.map(|template| template.text().into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::files::write_bytes;

    #[test]
    fn names_are_those_of_folders_anywhere() {
        for name in ["a", "question-answering_2.1", "7"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", ".", "..", ".a", "a/b", "a b", "ü", "a\\b"] {
            assert!(check_name(name).unwrap_err().starts_with("expected a name"), "{name}");
        }
    }

    #[test]
    fn only_a_folder_of_adapters_and_of_runs_is_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Table::open(folder.path()).unwrap();
        assert!(open().names().is_empty() && !Table::is_one(folder.path()));
        write_bytes(&folder.path().join("b").join(CONFIG_FILE), b"{}").unwrap();
        write_bytes(&folder.path().join("a").join(CONFIG_FILE), b"{}").unwrap();
        write_bytes(&folder.path().join("begun/metrics.jsonl"), b"").unwrap();
        assert_eq!(open().names(), ["a", "b"]);
        assert!(Table::is_one(folder.path()) && !Table::is_one(&folder.path().join("a")));
        assert_eq!(open().place("c").unwrap(), folder.path().join("c"));
        let message = open().task("c").unwrap_err().to_string();
        assert!(message.ends_with("has no task `c`; expected one of `a`, `b`"), "{message}");
        for stranger in ["notes.txt", "model/config.json", "more/a/adapter_config.json"] {
            let path = folder.path().join(stranger);
            write_bytes(&path, b"{}").unwrap();
            let message = open().place("c").unwrap_err().to_string();
            let name = stranger.split('/').next().unwrap();
            assert!(message.contains(&format!("it holds {name}; expected folders of adapters alone")), "{message}");
            files::remove(&folder.path().join(name)).unwrap();
        }
    }
}
