//! Which layers of a model a method is on.

use fancy_regex::Regex;
use serde_json::{Value, json};

use super::settings::names;
use crate::error::{Error, Result};
use crate::formats::json::Object;
use crate::wording::{sentence, shortened};

/// Help of a setting that names them.
pub(super) const HELP: &str = "Layers to tune: names separated by commas, each in the model, all-linear, or a regular expression that \
                               fits whole names";

/// Which modules a method is on.
#[derive(Debug, Clone)]
pub enum Targets {
    /// Every linear layer but the output projection.
    AllLinear,
    /// Modules whose name is one of these or ends in one of them, after a dot.
    Named(Vec<String>),
    /// Modules whose whole name this fits.
    Pattern(Box<Regex>),
}

impl PartialEq for Targets {
    fn eq(&self, other: &Targets) -> bool {
        self.to_json() == other.to_json()
    }
}

impl std::fmt::Display for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Targets::AllLinear => f.write_str("all-linear"),
            Targets::Named(names) => f.write_str(&names.join(", ")),
            Targets::Pattern(_) => write!(f, "{}", self.to_json().as_str().unwrap_or_default()),
        }
    }
}

/// What no name has, and most regular expressions have.
const OF_PATTERNS: &str = "*+?()[]{}|\\^$";

impl Targets {
    /// What somebody typed.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn parse(text: &str) -> std::result::Result<Targets, String> {
        match text.trim() {
            "all-linear" => Ok(Targets::AllLinear),
            text if text.contains(|letter| OF_PATTERNS.contains(letter)) => Targets::pattern(text),
            text => names(text).map(Targets::Named),
        }
    }

    /// PEFT's `re.fullmatch`.
    fn pattern(text: &str) -> std::result::Result<Targets, String> {
        let regex = Regex::new(&format!("^(?:{text})$"));
        regex.map(|regex| Targets::Pattern(Box::new(regex))).map_err(|error| format!("expected a regular expression: {error}"))
    }

    /// The key `target_modules` of an adapter's config.
    pub(super) fn read(keys: &Object) -> Result<Targets> {
        let expected = "a list of module names, a regular expression, or \"all-linear\"";
        match keys.get("target_modules") {
            None => Err(keys.error("target_modules", expected)),
            Some(Value::String(all)) if all == "all-linear" => Ok(Targets::AllLinear),
            // A plain name is no expression: it has to fit the whole of one, and no module of a model is called so.
            Some(Value::String(name)) if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                Ok(Targets::Named(vec![name.clone()]))
            }
            Some(Value::String(text)) => Targets::pattern(text).map_err(|message| keys.error("target_modules", message)),
            Some(_) => match keys.strings("target_modules")? {
                Some(names) if !names.is_empty() => Ok(Targets::Named(names)),
                _ => Err(keys.error("target_modules", expected)),
            },
        }
    }

    /// The same.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Targets::AllLinear => json!("all-linear"),
            Targets::Named(names) => json!(names),
            Targets::Pattern(regex) => json!(regex.as_str().trim_start_matches("^(?:").trim_end_matches(")$")),
        }
    }

    /// Whether this module is one of them, which is a linear layer of a block, or an embedding, which has to be named.
    pub fn include(&self, module: &str) -> bool {
        match self {
            Targets::AllLinear => layer(module).is_some(),
            Targets::Named(names) => names.iter().any(|name| is_or_ends_in(module, name)),
            Targets::Pattern(regex) => regex.is_match(module).unwrap_or(false),
        }
    }

    /// Checks that every name is in one of these modules, or that the expression fits one, and takes no time without end.
    ///
    /// # Errors
    /// [`Error::Data`] naming what is in none.
    pub(super) fn check(&self, modules: &[&str]) -> Result<()> {
        match self {
            Targets::AllLinear => Ok(()),
            Targets::Named(names) => {
                let is_lost = |name: &&String| !modules.iter().any(|module| is_or_ends_in(module, name));
                match names.iter().find(is_lost) {
                    Some(name) => Err(no_layer(modules, &format!("target {:?} is", shortened(name, 200)))),
                    None => Ok(()),
                }
            }
            Targets::Pattern(regex) => {
                let mut found = false;
                for module in modules {
                    let error =
                        |error| Error::Data { message: format!("targets {} and the name {module:?}: {error}", sentence(self)) };
                    found |= regex.is_match(module).map_err(error)?;
                }
                if found { Ok(()) } else { Err(no_layer(modules, &format!("targets {} are", sentence(self)))) }
            }
        }
    }
}

/// The error for targets that a model lacks.
pub(super) fn no_layer(modules: &[&str], targets_are: &str) -> Error {
    let mut names: Vec<&str> = modules.iter().filter_map(|module| module.rsplit('.').next()).collect();
    names.sort_unstable();
    names.dedup();
    Error::Data { message: format!("{targets_are} in no layer of the model: expected some of {}", names.join(", ")) }
}

/// Whether a module's name is this one, or ends in it after a dot.
pub(super) fn is_or_ends_in(module: &str, name: &str) -> bool {
    match module.strip_suffix(name) {
        Some(before) => before.is_empty() || before.ends_with('.'),
        None => false,
    }
}

/// The first number among the parts of a module's name.
pub(super) fn layer(module: &str) -> Option<usize> {
    module.split('.').find_map(|part| part.parse().ok())
}
