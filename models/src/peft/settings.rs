//! What can be chosen of a method, as data: names, what each takes, and what it is by default.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::Entry;

/// Something that can be chosen.
pub struct Setting {
    /// Its name, parts joined by hyphens. The same in two methods is the same thing.
    pub name: &'static str,
    /// What it is, in a line.
    pub help: &'static str,
    /// What it takes.
    pub form: Form,
}

/// What a setting takes, and what it is where nothing is chosen.
pub enum Form {
    /// On, or off by default.
    Switch,
    /// A whole number.
    Whole {
        /// From and to.
        range: RangeInclusive<usize>,
        /// By default.
        default: usize,
    },
    /// A number above 0.
    AboveZero(f64),
    /// A number from 0 to below 1.
    BelowOne(f64),
    /// One of some names, the first by default.
    OneOf(&'static [(&'static str, &'static str)]),
    /// A text for which `check` has no words of what was expected.
    Text {
        /// What stands for it in a help.
        value: &'static str,
        /// By default; empty is none.
        default: &'static str,
        /// What is expected, where it is something else.
        check: fn(&str) -> Result<(), String>,
    },
}

impl Setting {
    /// Its value where nothing is chosen; null is none.
    pub fn default(&self) -> Value {
        match &self.form {
            Form::Switch => false.into(),
            Form::Whole { default, .. } => (*default).into(),
            Form::AboveZero(default) | Form::BelowOne(default) => (*default).into(),
            Form::OneOf(names) => names[0].0.into(),
            Form::Text { default: "", .. } => Value::Null,
            Form::Text { default, .. } => (*default).into(),
        }
    }
}

/// What was chosen of a method, defaults included.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings(BTreeMap<&'static str, Value>);

impl Settings {
    /// Those that `chosen` gives by name, and the defaults of all others. What is chosen must be of its setting's form.
    pub fn new(method: &Entry, mut chosen: impl FnMut(&str) -> Option<Value>) -> Settings {
        let value = |setting: &Setting| (setting.name, chosen(setting.name).unwrap_or_else(|| setting.default()));
        Settings(method.settings.iter().map(value).collect())
    }

    /// Names and values; null is none.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    pub(super) fn whole(&self, name: &str) -> usize {
        self.0[name].as_u64().expect("a whole number") as usize
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().expect("a number")
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.0[name] == true
    }

    /// A text, or one of some names; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }
}

/// The names in a text that separates them by commas, spaces around them left out.
///
/// # Errors
/// An empty name, or one with a space within.
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_string()).collect();
    match names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        true => Err("expected names separated by commas, as q_proj,v_proj".into()),
        false => Ok(names),
    }
}
