//! Which way of tuning, and what is chosen of it: options made of what the methods say of themselves.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use serde_json::Value;
use wgtune_models::data::template::Template;
use wgtune_models::model::Model;
use wgtune_models::peft::{self, Entry, Form, METHODS, Setting, Settings, Start, Tuned, VIRTUAL_TOKENS, method};
use wgtune_models::tasks::Table;
use wgtune_models::transformer::Decoder;

use crate::common::{Force, Task, task_name};
use crate::numbers::{above_zero, below_one, whole};

const TEMPLATE_HELP: &str = r#"Make a text of each row's fields, with virtual tokens where the template has them:

  <|virtual:8|> Question: {question} <|virtual:4|>

Rows have the fields, texts or numbers, and the completion. {{ and }} are braces of the text. The
virtual tokens are those of --virtual-tokens, numbered in the order in which they stand; methods
without virtual tokens in a text take fields alone. An adapter keeps its template, and makes its
texts by it wherever it is used. PEFT knows no templates and puts all virtual tokens first: of a
template that begins with all of its own, it computes the same."#;

/// How a model is tuned.
pub struct Tuning {
    pub method: &'static Entry,
    settings: Settings,
    /// What is gone on from, in the place of a new adapter.
    pub adapter: Option<PathBuf>,
    pub force: Force,
    /// What makes the texts of a new adapter.
    template: Option<Template>,
    /// Which task of its table is trained.
    pub task: Option<String>,
}

/// Every setting of the methods once.
fn settings() -> impl Iterator<Item = &'static Setting> {
    let mut seen = Vec::new();
    METHODS.iter().flat_map(|entry| entry.settings).filter(move |setting| {
        let is_new = !seen.contains(&setting.name);
        seen.push(setting.name);
        is_new
    })
}

impl Args for Tuning {
    fn augment_args(command: Command) -> Command {
        let methods = METHODS.each_ref().map(|entry| {
            let rate = format!("learning rate {:e} unless given", entry.learning_rate);
            PossibleValue::new(entry.name).help(format!("{} ({rate})", entry.about))
        });
        let method = Arg::new("method")
            .long("method")
            .value_name("METHOD")
            .help("What is trained")
            .default_value(METHODS[0].name)
            .value_parser(PossibleValuesParser::new(methods));
        let adapter = Arg::new("adapter")
            .long("adapter")
            .value_name("DIR")
            .help("Start from this PEFT adapter, with the settings that it has")
            .value_parser(value_parser!(PathBuf))
            .conflicts_with_all(settings().map(|setting| setting.name));
        let task = Arg::new("task")
            .long("task")
            .value_name("NAME")
            .help("Train this task of the table that --out is; of an --adapter that is a table too, go on from that of the name")
            .value_parser(task_name);
        let template = Arg::new("prompt-template")
            .long("prompt-template")
            .value_name("TEXT")
            .help("Make a text of each row's fields, with virtual tokens where the template has them")
            .long_help(TEMPLATE_HELP)
            .value_parser(Template::parse)
            .conflicts_with("adapter");
        let command = Force::augment_args(command.arg(method).arg(adapter).arg(task).arg(template));
        settings().map(argument).fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Tuning::augment_args(command)
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.name).long(setting.name);
    let arg = arg.help(format!("{}{}", setting.help, default_of(setting.name)));
    match &setting.form {
        Form::Switch => arg.action(ArgAction::SetTrue),
        Form::Whole { range, .. } => arg.value_name("NUMBER").value_parser(whole(range.clone())),
        Form::AboveZero(_) => arg.value_name("NUMBER").value_parser(above_zero),
        Form::BelowOne(_) => arg.value_name("SHARE").value_parser(below_one),
        Form::OneOf(names) => {
            let values = names.iter().map(|(name, help)| PossibleValue::new(*name).help(*help));
            arg.value_name("NAME").value_parser(PossibleValuesParser::new(values))
        }
        Form::Text { value, check, .. } => {
            arg.value_name(*value).value_parser(move |text: &str| check(text).map(|()| text.to_string()))
        }
    }
}

/// What a setting is where nobody chooses, in words; nothing where that is nothing.
fn default_of(name: &str) -> String {
    let own =
        |entry: &'static Entry| entry.settings.iter().find(|setting| setting.name == name).map(|setting| (entry.name, setting));
    let defaults: Vec<(&str, Value)> = METHODS.iter().filter_map(own).map(|(name, setting)| (name, setting.default())).collect();
    let shown = |value: &Value| match value {
        Value::Null | Value::Bool(_) => None,
        Value::String(text) => Some(text.clone()),
        number => Some(number.as_f64().unwrap_or_default().to_string()),
    };
    let are_alike = defaults.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let of = |(method, value): &(&str, Value)| {
        shown(value).map(|value| if are_alike { value } else { format!("{value} with {method}") })
    };
    let mut words: Vec<String> = defaults.iter().filter_map(of).collect();
    words.dedup();
    if words.is_empty() { String::new() } else { format!(" [default: {}]", words.join(", ")) }
}

/// The methods that are so.
fn listed(fits: impl Fn(&Entry) -> bool) -> String {
    let fitting = METHODS.iter().filter(|entry| fits(entry)).map(|entry| format!("--method {}", entry.name));
    fitting.collect::<Vec<_>>().join(" or ")
}

impl FromArgMatches for Tuning {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Tuning, clap::Error> {
        let name: &String = matches.get_one("method").expect("it has a default");
        let method = method(name).expect("it is one of the list");
        let refused = |message: String| Err(clap::Error::raw(ErrorKind::ArgumentConflict, format!("{message}\n")));
        let adapter: Option<&PathBuf> = matches.get_one("adapter");
        let task: Option<&String> = matches.get_one("task");
        let in_table = |folder: &PathBuf| Task { task: task.filter(|_| Table::is_one(folder)).cloned() }.of(folder);
        let adapter = match adapter.map(in_table).transpose() {
            Ok(adapter) => adapter,
            Err(error) => return refused(error.to_string()),
        };
        let template: Option<&Template> = matches.get_one("prompt-template");
        if adapter.is_some() && method.adapter.is_none() {
            let fitting = listed(|entry| entry.adapter.is_some());
            return refused(format!("--adapter goes with {fitting}: merge it first to train the whole model"));
        }
        // What cannot be read is told where it is opened.
        let method = match adapter.as_ref().and_then(|folder| peft::method_of(folder).ok()) {
            Some((own, _)) if matches.value_source("method") != Some(ValueSource::DefaultValue) && own.name != name => {
                return refused(format!("the adapter is one of {}, and --method is {name}: expected no other", own.name));
            }
            Some((own, _)) => own,
            None => method,
        };
        let is_given = |name: &str| matches.value_source(name).is_some_and(|source| source != ValueSource::DefaultValue);
        let has = |entry: &Entry, name: &str| entry.settings.iter().any(|setting| setting.name == name);
        if let Some(stray) = settings().find(|setting| is_given(setting.name) && !has(method, setting.name)) {
            let fitting = listed(|entry| has(entry, stray.name));
            return refused(format!("--{} goes with {fitting}, and the method is {name}", stray.name));
        }
        let of_template = template.map(Template::virtual_tokens).filter(|count| *count > 0);
        if let (Some(count), Some(&given)) = (of_template, matches.get_one::<usize>(VIRTUAL_TOKENS))
            && count != given
        {
            return refused(format!("--{VIRTUAL_TOKENS} is {given}, and the template has {count}: expected one of the two"));
        }
        let settings = Settings::new(method, |name| {
            if let Some(count) = of_template.filter(|_| name == VIRTUAL_TOKENS) {
                return Some(count.into());
            }
            let setting = settings().find(|setting| setting.name == name).filter(|setting| is_given(setting.name))?;
            match &setting.form {
                Form::Switch => matches.get_one::<bool>(name).map(|&is_on| is_on.into()),
                Form::Whole { .. } => matches.get_one::<usize>(name).map(|&number| number.into()),
                Form::AboveZero(_) | Form::BelowOne(_) => matches.get_one::<f64>(name).map(|&number| number.into()),
                Form::OneOf(_) | Form::Text { .. } => matches.get_one::<String>(name).map(|text| text.clone().into()),
            }
        });
        let force = Force::from_arg_matches(matches)?;
        Ok(Tuning { method, settings, adapter, force, template: template.cloned(), task: task.cloned() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Tuning::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Tuning {
    /// The bare model with what is trained on the tape.
    pub fn begin(&self, model: &Model, bare: Decoder, seed: u64) -> wgtune_models::Result<Tuned> {
        self.force.check(model, self.adapter.as_deref())?;
        let tuned = match &self.adapter {
            Some(directory) => peft::open(directory, bare)?,
            None => {
                let encode = |text: &str| model.tokenizer()?.encode(text, false);
                let start = Start { decoder: bare, base: &model.name()?, seed, encode: &encode };
                let tuned = (self.method.begin)(&self.settings, start)?;
                match &self.template {
                    Some(template) => tuned.with_template(template.clone())?,
                    None => tuned,
                }
            }
        };
        Ok(tuned.requiring_grad())
    }

    /// The settings by name, as they came to be; none where those of an adapter hold.
    pub fn resolved(&self) -> Vec<(&'static str, Value)> {
        let settings = self.adapter.is_none().then(|| self.settings.iter());
        settings.into_iter().flatten().map(|(name, value)| (name, value.clone())).collect()
    }

    /// A hash of the adapter that is gone on from.
    pub fn hash(&self) -> wgtune_models::Result<Option<(&'static str, String)>> {
        let hash = |directory: &PathBuf| Ok(("adapter", peft::fingerprint(directory)?));
        self.adapter.as_ref().map(hash).transpose()
    }

    /// The folders that are read beside the model's.
    pub fn read(&self) -> Option<&Path> {
        self.adapter.as_deref()
    }
}
