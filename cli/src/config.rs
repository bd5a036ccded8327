//! `--config`: the options of a training command from a TOML file, made arguments as if they were typed before those of the
//! command line, so that what checks those checks them too. And the way back, for the `run.toml` that every run writes.

use std::any::TypeId;
use std::error::Error as _;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};
use wgtune_models::error::Error;
use wgtune_models::formats::files::read_text;
use wgtune_models::train::record::{Record, TABLES};
use wgtune_models::wording::{listed, shortened};

use crate::jobs;

const CONFIG_HELP: &str = r#"Options from a TOML file, under their long names:

  model = "DIR"
  data = ["rows.jsonl"]
  learning-rate = 1e-4
  packing = true

Options of the command line come first; what the file switches on, only the file
switches off. Every run writes its own as run.toml: a run
with that as its --config comes to the same numbers, to the bit, or says which of the
model and the data are not the same."#;

/// Which options stand in a file.
#[derive(Args)]
pub struct ConfigFile {
    /// Take options from this TOML file too, as the run.toml of an earlier run; those of the command line come first
    #[arg(long, value_name = "FILE", long_help = CONFIG_HELP)]
    pub config: Option<PathBuf>,
}

/// Options that no file is asked for.
const OF_THE_COMMAND_LINE: [&str; 4] = ["config", "jobs", "help", "version"];
/// Options that are of one run alone: where it goes, and what it says.
const OF_ONE_RUN: [&str; 7] = ["out", "resume", "overwrite", "plan", "profile", "json", "quiet"];

/// The command whose file has options of its stages too, which it reads itself.
const STAGED: &str = "rlhf";

/// Options that decide no numbers, or that a hash stands for what they name.
pub const MAY_DIFFER: [&str; 20] = [
    "model",
    "data",
    "columns",
    "template",
    "adapter",
    "task",
    "probe",
    "unseen",
    "beyond",
    "device",
    "matmul-precision",
    "no-tune",
    "save-every",
    "save-minutes",
    "keep",
    "no-tensorboard",
    "sample-prompt",
    "reward-model",
    "reward-seconds",
    "together",
];

/// The file that a command's options come from.
pub struct Source {
    pub path: PathBuf,
    pub record: Record,
}

/// The options that a command was given, defaults included.
pub struct Given {
    pub command: String,
    /// Under their long names; null where there is none.
    pub options: Map<String, Value>,
    pub file: Option<Source>,
}

/// A command as it is to be parsed.
pub struct Asked {
    pub typed: Vec<OsString>,
    pub file: Option<Source>,
    /// Where what was added to the command line stands, if there are several such.
    pub place: Option<String>,
}

/// The arguments of the command line, and between the command's name and its options those of the file that `--config` names; of
/// `--jobs`, the same for each job.
///
/// # Errors
/// A file that cannot be read, or is another command's; a key that is no option, and a value that its option does not take,
/// each with its line and what was expected.
pub fn expanded(program: &Command, typed: Vec<OsString>) -> Result<Vec<Asked>, Box<dyn std::error::Error>> {
    let lenient = lenient(program);
    let as_it_is = |typed| Ok(vec![Asked { typed, file: None, place: None }]);
    // What is wrong with the command line itself is said where the whole of it is parsed.
    let Ok(matches) = lenient.clone().try_get_matches_from(&typed) else { return as_it_is(typed) };
    let Some((name, given)) = matches.subcommand() else { return as_it_is(typed) };
    let command = program.find_subcommand(name).expect("it was parsed");
    let path = |option: &str| given.try_get_one::<PathBuf>(option).ok().flatten();
    let at = typed.iter().skip(1).position(|word| word == name).map_or(typed.len(), |place| place + 2);
    let spliced =
        |words: Vec<String>| [&typed[..at], &words.into_iter().map(OsString::from).collect::<Vec<_>>(), &typed[at..]].concat();
    if let Some(path) = path("jobs") {
        let text = read_text(path)?;
        let file = File { path, text: &text, lenient: &lenient, command, given };
        let asked = |job: jobs::Typed| Asked { typed: spliced(job.words), file: None, place: Some(job.place) };
        return Ok(jobs::of_file(&file)?.into_iter().map(asked).collect());
    }
    let Some(path) = path("config") else { return as_it_is(typed) };
    let text = read_text(path)?;
    let record = Record::parse(path, &text)?;
    if let Some(run) = record.run.as_ref().filter(|run| run.command != name) {
        let found = format!("{}: `run.command` is \"{}\"", path.display(), run.command);
        return Err(format!("{found}; expected \"{name}\", or a file without the table `run`").into());
    }
    let file = File { path, text: &text, lenient: &lenient, command, given };
    let table = file.table()?;
    let is_own = |key: &str| name != STAGED || command.get_arguments().any(|argument| long(argument) == key);
    let without =
        TABLES.into_iter().chain(table.keys().map(|key| &**key.get_ref()).filter(|key| !is_own(key))).collect::<Vec<_>>();
    let options = file.options(&table, &without, &[])?;
    let file = Some(Source { path: path.clone(), record });
    Ok(vec![Asked { typed: spliced(options.words), file, place: None }])
}

/// The line in which a place of a text is, from 1.
pub fn line(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// The program without an argument that must be given.
pub fn lenient(program: &Command) -> Command {
    program.clone().mut_subcommands(|command| command.mut_args(|argument| argument.required(false)))
}

/// A file of options, and the command that it is for.
pub struct File<'a, 'b> {
    pub path: &'b Path,
    pub text: &'b str,
    /// The program without an argument that must be given.
    pub lenient: &'b Command,
    pub command: &'a Command,
    /// What the command line gives.
    pub given: &'b ArgMatches,
}

/// Options of a file.
pub struct Options<'a> {
    /// As they would be typed.
    pub words: Vec<String>,
    /// Which they are.
    pub arguments: Vec<&'a Arg>,
}

impl<'a> File<'a, '_> {
    /// What is in it.
    pub fn table(&self) -> Result<DeTable<'_>, Error> {
        Ok(DeTable::parse(self.text).map_err(Error::toml(self.path, self.text))?.into_inner())
    }

    /// The line in which a place of the text is, from 1.
    pub fn line(&self, at: usize) -> usize {
        line(self.text, at)
    }

    /// The options in a table of it, but for those in whose place the command line, or one of `over`, says something else. Keys
    /// `without` are of no option.
    pub fn options(&self, table: &DeTable, without: &[&str], over: &[&Arg]) -> Result<Options<'a>, Box<dyn std::error::Error>> {
        let is_typed = |argument: &Arg| self.given.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
        let is_over = |argument: &Arg| is_typed(argument) || over.iter().any(|other| other.get_id() == argument.get_id());
        let overridden = |argument: &Arg| {
            is_over(argument)
                || self.command.get_arguments().any(|other| is_over(other) && conflict(self.command, argument, other))
        };
        let mut keys: Vec<_> = table.iter().filter(|(key, _)| !without.contains(&&**key.get_ref())).collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let mut options = Options { words: Vec::new(), arguments: Vec::new() };
        for (key, value) in keys {
            let at = |message: String| {
                format!("{}:{}: `{}` {message}", self.path.display(), self.line(key.span().start), key.get_ref())
            };
            let argument = self.argument(key.get_ref()).map_err(at)?;
            let found = shortened(&self.text[value.span()], 60);
            let refused = |expected: String| at(format!("is {found}; {expected}"));
            let words = words(argument, value.get_ref()).ok_or_else(|| refused(expected(argument)))?;
            let alone = ["wgtune", self.command.get_name()].into_iter().chain(words.iter().map(String::as_str));
            self.lenient.clone().try_get_matches_from(alone).map_err(|error| refused(refusal(&error)))?;
            if words.is_empty() || overridden(argument) {
                continue;
            }
            if let Some(other) = options.arguments.iter().find(|other| conflict(self.command, argument, other)) {
                return Err(at(format!("cannot stand beside `{}`; expected one of the two", long(other))).into());
            }
            options.arguments.push(argument);
            options.words.extend(words);
        }
        Ok(options)
    }

    fn argument(&self, key: &str) -> Result<&'a Arg, String> {
        let of_a_file = |argument: &&Arg| argument.get_long().is_some_and(|name| !OF_THE_COMMAND_LINE.contains(&name));
        let known: Vec<&'a Arg> = self.command.get_arguments().filter(of_a_file).collect();
        let named = |name: &str| known.iter().find(|argument| long(argument) == name).copied();
        named(key).ok_or_else(|| {
            let expected = match named(&key.replace('_', "-")) {
                Some(argument) => format!("`{}`", long(argument)),
                None => {
                    format!("one of {}", listed(&known.iter().map(|argument| long(argument).to_string()).collect::<Vec<_>>()))
                }
            };
            format!("is no option of wgtune {}; expected {expected}", self.command.get_name())
        })
    }
}

impl Given {
    /// What the command's arguments came to.
    pub fn new(command: &Command, matches: &ArgMatches, file: Option<Source>) -> Given {
        let source = |argument: &Arg| matches.value_source(argument.get_id().as_str());
        let is_given = |argument: &Arg| source(argument).is_some_and(|source| source != ValueSource::DefaultValue);
        // A default does not hold beside what it conflicts with.
        let holds = |argument: &Arg| {
            is_given(argument) || !command.get_arguments().any(|other| is_given(other) && conflict(command, argument, other))
        };
        let mut options = Map::new();
        for argument in command.get_arguments() {
            let Some(name) = argument.get_long().filter(|name| !OF_THE_COMMAND_LINE.contains(name) && !OF_ONE_RUN.contains(name))
            else {
                continue;
            };
            let texts = matches.get_raw(argument.get_id().as_str()).filter(|_| holds(argument));
            let mut values = texts.into_iter().flatten().map(|text| value(argument, &text.to_string_lossy()));
            let value = match argument.get_action() {
                ArgAction::Append => values.collect(),
                _ => values.next().unwrap_or_default(),
            };
            options.insert(name.into(), value);
        }
        Given { command: command.get_name().into(), options, file }
    }

    /// The record of a run that was given these, with what some of them came to; null is none.
    pub fn record<'a>(&self, resolved: impl IntoIterator<Item = (&'a str, Value)>, hashes: Vec<(&str, String)>) -> Record {
        let mut options = self.options.clone();
        options.extend(resolved.into_iter().map(|(name, value)| (name.to_string(), value)));
        options.retain(|_, value| !value.is_null());
        Record::new(&self.command, options, hashes.into_iter().map(|(name, hash)| (name.into(), hash.into())).collect())
    }
}

/// An option's name.
pub fn long(argument: &Arg) -> &str {
    argument.get_long().unwrap_or_default()
}

/// Whether two options cannot stand beside each other.
pub fn conflict(command: &Command, one: &Arg, other: &Arg) -> bool {
    let declared =
        |one: &Arg, other: &Arg| command.get_arg_conflicts_with(one).iter().any(|with| with.get_id() == other.get_id());
    declared(one, other) || declared(other, one)
}

fn is_switch(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::SetTrue)
}

fn is_whole(argument: &Arg) -> bool {
    let parsed = argument.get_value_parser().type_id();
    parsed == TypeId::of::<usize>() || parsed == TypeId::of::<u64>()
}

fn is_number(argument: &Arg) -> bool {
    is_whole(argument) || argument.get_value_parser().type_id() == TypeId::of::<f64>()
}

/// An option as it would be typed, with every one of its values; `None` if the value is of another type than the option's.
fn words(argument: &Arg, value: &DeValue) -> Option<Vec<String>> {
    let name = long(argument);
    let word = |value: &DeValue| match value {
        DeValue::String(text) if !is_number(argument) => Some(format!("--{name}={text}")),
        DeValue::Integer(number) if is_number(argument) => Some(format!("--{name}={number}")),
        DeValue::Float(number) if is_number(argument) => Some(format!("--{name}={number}")),
        _ => None,
    };
    match (argument.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(is_set)) => Some(is_set.then(|| format!("--{name}")).into_iter().collect()),
        (ArgAction::SetTrue, _) => None,
        (ArgAction::Append, DeValue::Array(list)) => list.iter().map(|value| word(value.get_ref())).collect(),
        _ => Some(vec![word(value)?]),
    }
}

fn expected(argument: &Arg) -> String {
    let one = match (is_switch(argument), is_number(argument)) {
        (true, _) => "true or false",
        (_, true) => "a number",
        _ => "text in quotes",
    };
    let list = if matches!(argument.get_action(), ArgAction::Append) { ", or a list of them" } else { "" };
    format!("expected {one}{list}")
}

/// What an option says of a value that it does not take, without the option and the value.
fn refusal(error: &clap::Error) -> String {
    match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(reason), _) => reason.to_string(),
        (None, Some(ContextValue::Strings(values))) if !values.is_empty() => format!("expected one of {}", listed(values)),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").into(),
    }
}

/// The value that an option's text stands for.
fn value(argument: &Arg, text: &str) -> Value {
    let number = || match is_whole(argument) {
        true => text.parse::<u64>().ok().map(Value::from),
        false => text.parse::<f64>().ok().filter(|_| is_number(argument)).map(Value::from),
    };
    if is_switch(argument) { (text == "true").into() } else { number().unwrap_or_else(|| text.into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Program;

    /// The options of a command that was typed so, its file's included.
    fn given(typed: &[&str]) -> Given {
        let mut program = Program::command();
        program.build();
        let Asked { typed, file, .. } = expanded(&program, typed.iter().map(OsString::from).collect()).unwrap().remove(0);
        let matches = program.clone().get_matches_from(typed);
        let (name, matches) = matches.subcommand().unwrap();
        Given::new(program.find_subcommand(name).unwrap(), matches, file)
    }

    #[test]
    fn every_option_of_a_training_command_comes_back_from_its_record() {
        let mut program = Program::command();
        program.build();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        for (name, required) in
            [("sft", &["--model", "m", "--data", "a", "b", "--out", "o"][..]), ("pretrain", &["--data", "a", "--out", "o"])]
        {
            let command = program.find_subcommand(name).unwrap();
            let switches = command.get_arguments().filter(|argument| is_switch(argument) && long(argument) != "resume");
            let switches: Vec<String> = switches.map(|argument| format!("--{}", long(argument))).collect();
            let typed: Vec<&str> =
                ["wgtune", name].iter().chain(required).copied().chain(switches.iter().map(String::as_str)).collect();
            let began = given(&typed);
            std::fs::write(&file, began.record([], Vec::new()).text()).unwrap();
            let again = given(&["wgtune", name, "--config", file.to_str().unwrap(), "--out", "another"]);
            assert_eq!(again.options, began.options);
            // What is not in it is of one run alone, or had no value.
            let left_out = |argument: &&Arg| !began.options.contains_key(long(argument));
            let left_out: Vec<&str> = command.get_arguments().filter(left_out).map(long).collect();
            assert!(left_out.iter().all(|name| OF_THE_COMMAND_LINE.contains(name) || OF_ONE_RUN.contains(name)), "{left_out:?}");
        }
    }

    #[test]
    fn every_name_here_is_some_training_commands_option() {
        let mut program = Program::command();
        program.build();
        let options = |name: &str| program.find_subcommand(name).unwrap().get_arguments();
        for name in OF_THE_COMMAND_LINE.iter().chain(&OF_ONE_RUN).chain(&MAY_DIFFER) {
            assert!(
                options("sft").chain(options("pretrain")).chain(options("ppo")).any(|argument| long(argument) == *name),
                "{name}"
            );
        }
    }
}
