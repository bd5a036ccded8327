//! `run.toml`: everything that a run was started with, so that it can be resumed, or done again.
//!
//! Its options stand first, under the names that they were given by; then what made the run, `[run]`; then hashes of what the
//! options only name, `[hashes]`.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::formats::files::read_text;
use crate::formats::json::abbreviated;
use crate::wording::sentence;

/// The tables of a record that hold no options.
pub const TABLES: [&str; 2] = [RUN, HASHES];
const RUN: &str = "run";
const HASHES: &str = "hashes";
/// The hash that depends on options too: of the rows as they are trained on.
const EXAMPLES: &str = "examples";

/// What a run was started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What made it; a file that somebody wrote by hand need not say.
    pub run: Option<Run>,
    /// The options: texts, numbers, truth values, and lists of texts.
    pub options: Map<String, Value>,
    /// Hashes of the model, the data and whatever else the options name, and of the `examples` that became of the data.
    pub hashes: Map<String, Value>,
}

/// What made a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Run {
    /// The command whose options they are.
    pub command: String,
    /// The version of wgtune.
    pub wgtune: String,
    /// Whether the files of a model or an adapter that are in the folder are this run's.
    pub has_results: bool,
}

/// Which options of a run may be others than it began with, by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct May<'a> {
    /// These may be greater.
    pub rise: &'a [&'a str],
    /// These may be anything: they decide no numbers, or a hash stands for what they name.
    pub differ: &'a [&'a str],
}

impl Record {
    /// That of a run that begins now.
    pub fn new(command: &str, options: Map<String, Value>, hashes: Map<String, Value>) -> Record {
        let run = Run { command: command.into(), wgtune: env!("CARGO_PKG_VERSION").into(), has_results: false };
        Record { run: Some(run), options, hashes }
    }

    /// Reads a file of options, with the tables of a record or without.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Toml`]; [`Error::Value`] for one of the tables that no record has like that. The options are for
    /// their reader to check.
    pub fn open(path: &Path) -> Result<Record> {
        Record::parse(path, &read_text(path)?)
    }

    /// Reads the text of the file `path`, as [`open`](Record::open) does.
    ///
    /// # Errors
    /// As [`open`](Record::open).
    pub fn parse(path: &Path, text: &str) -> Result<Record> {
        let mut options: Map<String, Value> = toml::from_str(text).map_err(Error::toml(path, text))?;
        let refused = |key: &str, found: &Value, expected: String| Error::Value {
            path: path.to_path_buf(),
            key: key.into(),
            found: abbreviated(found),
            expected,
        };
        let run = options.remove(RUN).map(|table| {
            serde_json::from_value(table.clone())
                .map_err(|error| refused(RUN, &table, format!("a run's own table: {}", sentence(error))))
        });
        let hashes = match options.remove(HASHES) {
            None => Map::new(),
            Some(Value::Object(table)) if table.values().all(Value::is_string) => table,
            Some(other) => return Err(refused(HASHES, &other, "a table of texts".into())),
        };
        Ok(Record { run: run.transpose()?, options, hashes })
    }

    /// The file's text. What is JSON of one line is a value of TOML too, but for one character.
    pub fn text(&self) -> String {
        let lines = |keys: &Map<String, Value>| -> String {
            keys.iter().map(|(key, value)| format!("{key} = {value}\n").replace('\u{7F}', "\\u007F")).collect()
        };
        let run = serde_json::to_value(&self.run).expect("plain data is JSON");
        let (options, hashes) = (lines(&self.options), lines(&self.hashes));
        format!(
            "# The options of this run.\n{options}\n[{RUN}]\n{}\n\
             # Of what the options name. A run with these options checks that it has the same; without this table it does not.\n\
             [{HASHES}]\n{hashes}",
            run.as_object().map(lines).unwrap_or_default()
        )
    }

    /// What is another in `now`, as `steps 30 -> 60`, where a run that began with this record may go on with that one.
    ///
    /// # Errors
    /// A sentence that names the first that may not be another.
    pub(super) fn changes(&self, now: &Record, may: &May) -> std::result::Result<Vec<String>, String> {
        let mut changes = Vec::new();
        for (key, before, after) in self.differences(now, may.differ) {
            let rises = before.as_f64().zip(after.as_f64()).is_some_and(|(before, after)| after > before);
            if !(rises && may.rise.contains(&key)) {
                return Err(format!("began with `{key}` {before}, and now it is {after}"));
            }
            changes.push(format!("{key} {before} -> {after}"));
        }
        Ok(changes)
    }

    /// Checks that a run which took its options from this record, of the file `path`, has what its hashes say. Whether it has
    /// the same `examples` says nothing where an option is another.
    ///
    /// # Errors
    /// [`Error::Data`] that names the first hash that does not fit.
    pub fn check_hashes(&self, path: &Path, now: &Record, may: &May) -> Result<()> {
        let same_options = |record: &Record| Record { hashes: Map::new(), run: None, ..record.clone() };
        let repeats = same_options(self).changes(&same_options(now), &May { rise: &[], ..*may }).is_ok();
        for (name, before) in self.hashes.iter().filter(|(name, _)| repeats || *name != EXAMPLES) {
            if let Some(after) = now.hashes.get(name).filter(|after| *after != before) {
                let path = path.display();
                let message = format!(
                    "{path}: other {name} than its run had: `{HASHES}.{name}` is {before}, and now it is {after}; expected the \
                     same, or a file without the table `{HASHES}`, which does not ask"
                );
                return Err(Error::Data { message });
            }
        }
        Ok(())
    }

    /// The keys with other values in `now`, and both values: null where there is none. Options of the names in `without` are
    /// left out.
    fn differences<'a>(&'a self, now: &'a Record, without: &[&str]) -> Vec<(&'a str, Value, Value)> {
        let command = |record: &Record| record.run.as_ref().map_or(Value::Null, |run| run.command.clone().into());
        let mut all = vec![("command", command(self), command(now))];
        // The hashes last, since options (the seed, the length) change what the data becomes, and the first that differs is named.
        for (before, after, without) in [(&self.options, &now.options, without), (&self.hashes, &now.hashes, &[])] {
            let mut seen: BTreeSet<&str> = without.iter().copied().collect();
            let keys = after.keys().chain(before.keys()).filter(|key| seen.insert(key));
            let value = |keys: &Map<String, Value>, key: &str| keys.get(key).cloned().unwrap_or_default();
            all.extend(keys.map(|key| (key.as_str(), value(before, key), value(after, key))));
        }
        all.into_iter().filter(|(_, before, after)| before != after).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn record(options: Value) -> Record {
        Record::new("sft", map(options), map(json!({"model": "m", "data": "d", "examples": "e"})))
    }

    #[test]
    fn what_is_written_is_read_again_to_the_bit() {
        let path = "a \"quoted\" \\ path\n\u{7F}\u{1F600}";
        let options = json!({
            "model": path, "data": [path, "b"], "learning-rate": 0.00012345678901234567, "alpha": 16.0, "rate": 1e-30,
            "large": 1e300, "seed": u64::MAX, "steps": 30, "packing": true,
        });
        let record = record(options);
        assert_eq!(Record::parse(Path::new("run.toml"), &record.text()).unwrap(), record, "{}", record.text());
    }

    #[test]
    fn a_table_that_no_record_has_is_refused() {
        let parse = |text: &str| Record::parse(Path::new("run.toml"), text).unwrap_err().to_string();
        for (text, expected) in [
            ("steps = \n", "run.toml:1:9: broken TOML: "),
            ("\n\nsteps 3\n", "run.toml:3:7: broken TOML: "),
            ("steps = 1\nsteps = 2\n", "run.toml:2:1: broken TOML: duplicate key"),
            ("[run]\ncommand = 3\n", "run.toml: `run` is {\"command\":3}; expected a run's own table: "),
            ("[hashes]\nmodel = 3\n", "run.toml: `hashes` is {\"model\":3}; expected a table of texts"),
        ] {
            assert!(parse(text).starts_with(expected), "{text}: {}", parse(text));
        }
        assert_eq!(Record::parse(Path::new("run.toml"), "steps = 1").unwrap().run, None);
    }

    #[test]
    fn other_data_is_refused_and_other_examples_only_of_the_same_options() {
        let may = May { rise: &[], differ: &["data"] };
        let began = record(json!({"seed": 1, "data": "a"}));
        let check = |now: &Record| began.check_hashes(Path::new("run.toml"), now, &may).map_err(|error| error.to_string());
        let with = |seed: u64, hash: &str| {
            let mut now = record(json!({"seed": seed, "data": "b"}));
            now.hashes.insert(hash.into(), "another".into());
            now
        };
        assert_eq!(check(&record(json!({"seed": 1, "data": "b"}))), Ok(()));
        for now in [with(1, "data"), with(2, "data"), with(1, "model"), with(1, "examples")] {
            let message = check(&now).unwrap_err();
            assert!(message.starts_with("run.toml: other ") && message.contains("now it is \"another\""), "{message}");
        }
        assert_eq!(check(&with(2, "examples")), Ok(()));
        // An option of the same name may be another, and its hash may not.
        assert_eq!(began.changes(&record(json!({"seed": 1, "data": "b"})), &may), Ok(Vec::new()));
        let refused = began.changes(&with(1, "data"), &may).unwrap_err();
        assert_eq!(refused, "began with `data` \"d\", and now it is \"another\"");
    }
}
