//! A stage of a run: a command as it would be typed, what it reads, and what of it can be checked before any work.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use wgtune_models::error::Error;
use wgtune_models::hash::xxh3;
use wgtune_models::rl::comparisons::margin;

use super::super::{Command, grpo, ppo};
use super::stages::JUDGED;
use crate::common::fingerprint;
use crate::config::Given;
use crate::data::Source;
use crate::learning::{Learning, RANKED};
use crate::playing::{CLASSIFIER, PROMPTS, Playing};
use crate::runs::Failure;
use crate::tuning::Tuning;

/// Options that name a file or a folder that is read.
const NAMING: [&str; 9] =
    ["model", "adapter", "policy", "policy-adapter", "reward-model", "reward-rule", "rubric", "constitution", "template"];

/// A stage as it is to be made.
pub struct Stage {
    /// Where it goes, in the run's folder, as `round-1/reward`.
    pub name: String,
    /// What it was parsed from: the command and its options.
    pub words: Vec<String>,
    pub command: Command,
    pub given: Given,
    /// The figures of an evaluation that say how safe the answers are.
    pub safety: Vec<String>,
}

/// Where the policy stands.
#[derive(Clone)]
pub struct Stand {
    /// A model, unless the file names none.
    pub model: Option<PathBuf>,
    /// An adapter on it.
    pub adapter: Option<PathBuf>,
}

/// What a stage reads, and how it is tuned if it is.
pub fn parts(command: &Command) -> (&Source, Option<&Tuning>) {
    fn of(learning: &Learning) -> (&Source, Option<&Tuning>) {
        (&learning.source, Some(&learning.tuning))
    }
    match command {
        Command::Judge(arguments) => (&arguments.source, None),
        Command::Sft(arguments) => (&arguments.source, Some(&arguments.tuning)),
        Command::Reward(arguments) => of(&arguments.learning),
        Command::Ppo(arguments) => of(&arguments.playing.learning),
        Command::Grpo(arguments) => of(&arguments.playing.learning),
        _ => unreachable!("no other command is a stage"),
    }
}

impl Stage {
    /// A hash of all that it reads, but for what the run makes, which is in `out`. `known` are those of what was hashed before.
    pub fn hash(&self, out: &Path, known: &mut BTreeMap<PathBuf, String>) -> wgtune_models::Result<String> {
        let mut all = vec![parts(&self.command).0.fingerprint_without(JUDGED)?];
        for path in self.named().filter(|path| !path.starts_with(out)) {
            let found = match known.get(&path) {
                Some(found) => found.clone(),
                None => fingerprint(&path)?,
            };
            known.insert(path, found.clone());
            all.push(found);
        }
        Ok(xxh3(all))
    }

    /// The files and folders that its options name, but for those of rows.
    fn named(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.words.iter().filter_map(|word| {
            let (option, path) = word.strip_prefix("--")?.split_once('=')?;
            let path = if option == "reward-rule" { path.strip_prefix(CLASSIFIER)? } else { path };
            NAMING.contains(&option).then(|| PathBuf::from(path))
        })
    }

    /// Where the policy stands after it.
    pub fn result(&self, out: &Path, stand: Stand) -> Stand {
        let folder = Some(out.join(&self.name));
        let is_adapter = parts(&self.command).1.is_some_and(|tuning| tuning.method.adapter.is_some());
        if is_adapter { Stand { adapter: folder, ..stand } } else { Stand { model: folder, adapter: None } }
    }

    /// Checks what can be checked before any stage is made.
    pub fn check(&self, has_own_model: bool, out: &Path, to_come: &[PathBuf]) -> Result<(), Failure> {
        let (source, tuning) = parts(&self.command);
        if has_own_model && tuning.is_some_and(|tuning| tuning.method.adapter.is_some()) {
            return Err("an adapter on a model of its own cannot judge on the policy's; expected `method = \"full\"`".into());
        }
        for path in self.named().filter(|path| !path.starts_with(out)) {
            fs::metadata(&path).map_err(Error::io(&path))?;
        }
        for file in source.files()?.iter().filter(|file| !to_come.contains(file)) {
            fs::metadata(file).map_err(Error::io(file))?;
        }
        let validation = self.given.options.get("validation").and_then(|share| share.as_f64());
        if !self.safety.is_empty() && validation == Some(0.0) {
            return Err("how safe answers are is told of prompts held out; expected `validation` above 0".into());
        }
        match &self.command {
            Command::Sft(arguments) => Ok(arguments.training.check_evaluation()?),
            Command::Judge(arguments) => arguments.check_options(),
            Command::Reward(arguments) => arguments.learning.check_options(),
            Command::Ppo(arguments) => ppo::check(arguments),
            Command::Grpo(arguments) => grpo::check(arguments),
            _ => unreachable!("no other command is a stage"),
        }?;
        Ok(self.check_rows(|file| !to_come.contains(file))?)
    }

    /// Checks the rows of those files that are there.
    fn check_rows(&self, is_there: impl Fn(&PathBuf) -> bool) -> wgtune_models::Result<()> {
        let prompts = |playing: &Playing| playing.check_rows(&playing.learning.source.open(None, PROMPTS, &is_there)?);
        match &self.command {
            Command::Reward(arguments) if arguments.learning.source.files().is_ok_and(|files| files.iter().any(&is_there)) => {
                let dataset = arguments.learning.source.open(None, RANKED, &is_there)?;
                dataset.rows.iter().try_for_each(|row| margin(&dataset, row).map(drop))
            }
            Command::Ppo(arguments) => prompts(&arguments.playing),
            Command::Grpo(arguments) => prompts(&arguments.playing),
            // A template may make texts of the rows of demonstrations, and a judge is the first to read its own.
            _ => Ok(()),
        }
    }
}
