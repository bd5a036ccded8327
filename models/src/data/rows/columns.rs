//! Columns of other names, taken for those that the forms have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Format;
use super::parse::NAMES;
use crate::data::template::Template;
use crate::wording::listed;

/// Which columns of a data set stand for which of the forms', and which template makes texts of the rows. None, by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    mapped: Vec<(String, String)>,
    template: Option<Template>,
    wanted: &'static [Format],
}

impl Columns {
    /// From pairs of a form's column and the data set's.
    ///
    /// # Errors
    /// A sentence, if the first of a pair is no form's column or was mapped already, or if the second is empty.
    pub fn new(pairs: Vec<(String, String)>) -> Result<Columns, String> {
        for (index, (ours, theirs)) in pairs.iter().enumerate() {
            if !NAMES.contains(&&ours[..]) {
                return Err(format!("`{ours}` is a column of no form of rows; expected one of: {}", NAMES.join(", ")));
            }
            if pairs[..index].iter().any(|(other, _)| other == ours) {
                return Err(format!("`{ours}` is mapped twice; expected one column"));
            }
            if theirs.is_empty() {
                return Err(format!("`{ours}` is mapped to nothing; expected the name of a column"));
            }
        }
        Ok(Columns { mapped: pairs, ..Columns::default() })
    }

    /// The same, for rows that this template makes texts of.
    pub fn filling(self, template: Option<Template>) -> Columns {
        Columns { template, ..self }
    }

    /// The same, for rows that are of one of these forms wherever they can be.
    pub fn wanting(self, wanted: &'static [Format]) -> Columns {
        Columns { wanted, ..self }
    }

    /// The forms that are looked for first.
    pub fn wanted(&self) -> &'static [Format] {
        self.wanted
    }

    /// What makes texts of the rows, where that is a template.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// Whether a column of the data is looked at.
    pub fn reads(&self, name: &str) -> bool {
        let is_field = |template: &Template| template.fields().iter().any(|field| field == name);
        NAMES.contains(&name)
            || self.mapped.iter().any(|(_, theirs)| theirs == name)
            || self.template.as_ref().is_some_and(is_field)
    }

    /// Whether a form's column is mapped.
    pub fn names(&self, ours: &str) -> bool {
        self.mapped.iter().any(|(name, _)| name == ours)
    }

    /// Gives a row's columns the forms' names. What had such a name makes way. `seen` gathers the names that rows have.
    pub fn rename(&self, row: &mut Value, seen: &mut BTreeSet<String>) {
        let Value::Object(row) = row else { return };
        if self.mapped.is_empty() {
            return;
        }
        for name in row.keys().filter(|name| !seen.contains(*name)).cloned().collect::<Vec<_>>() {
            seen.insert(name);
        }
        // All are looked up before any is taken away: two columns may change places.
        let values: Vec<_> = self.mapped.iter().filter_map(|(ours, theirs)| Some((ours, row.get(theirs)?.clone()))).collect();
        self.mapped.iter().for_each(|(_, theirs)| drop(row.shift_remove(theirs)));
        row.extend(values.into_iter().map(|(ours, value)| (ours.clone(), value)));
    }

    /// What is wrong if a mapped column is not among those `seen`.
    pub fn missing(&self, seen: &BTreeSet<String>) -> Option<String> {
        let (ours, theirs) = self.mapped.iter().find(|(_, theirs)| !seen.contains(theirs))?;
        let found = if seen.is_empty() { "none".into() } else { listed(seen) };
        Some(format!("no row has a column `{theirs}`, which `{ours}` is mapped to; the columns found: {found}"))
    }
}
