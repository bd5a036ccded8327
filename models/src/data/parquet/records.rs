//! Columns made into rows, after [Dremel](https://research.google/pubs/pub36632/).

use serde_json::{Map, Value};

use super::pages::Column;
use super::schema::{Field, Node, Repetition};

/// The columns of a row group, each with what was taken of it; none where a column is not read.
pub struct Records(pub Vec<Option<Cursor>>);

pub struct Cursor {
    definitions: Vec<u32>,
    repetitions: Vec<u32>,
    values: std::vec::IntoIter<Value>,
    at: usize,
}

impl From<Column> for Cursor {
    fn from(column: Column) -> Cursor {
        let Column { definitions, repetitions, values } = column;
        Cursor { definitions, repetitions, values: values.into_iter(), at: 0 }
    }
}

impl Cursor {
    fn definition(&self) -> Result<u32, String> {
        self.definitions.get(self.at).copied().ok_or_else(|| "its rows and its values do not come out even".into())
    }

    /// None at the end.
    fn repetition(&self) -> Option<u32> {
        self.repetitions.get(self.at).copied()
    }
}

impl Records {
    /// A field of the next row; `null` where its columns are not read.
    pub fn next(&mut self, field: &Field) -> Result<Value, String> {
        for leaf in field.leaves.clone() {
            let Some(cursor) = &self.0[leaf] else { return Ok(Value::Null) };
            if cursor.repetition() != Some(0) {
                return Err("its rows and its values do not come out even".into());
            }
        }
        self.value(field)
    }

    /// Whether all of every column was taken.
    pub fn is_empty(&self) -> bool {
        self.0.iter().flatten().all(|cursor| cursor.at == cursor.definitions.len())
    }

    fn value(&mut self, field: &Field) -> Result<Value, String> {
        let first = field.leaves.start;
        if field.repetition != Repetition::Required && self.cursor(first).definition()? < field.definition_level {
            for leaf in field.leaves.clone() {
                let cursor = self.cursor(leaf);
                if cursor.definition()? >= field.definition_level {
                    return Err("a struct that is there in some of its columns".into());
                }
                cursor.at += 1;
            }
            return Ok(if field.repetition == Repetition::Repeated { Value::Array(Vec::new()) } else { Value::Null });
        }
        if field.repetition != Repetition::Repeated {
            return self.node(field);
        }
        let mut list = Vec::new();
        loop {
            list.push(self.node(field)?);
            if self.cursor(first).repetition() != Some(field.repetition_level) {
                return Ok(Value::Array(list));
            }
        }
    }

    fn node(&mut self, field: &Field) -> Result<Value, String> {
        match &field.node {
            Node::Leaf(_) => {
                let cursor = self.cursor(field.leaves.start);
                if cursor.definition()? != field.definition_level {
                    return Err("a value is missing that must be there".into());
                }
                cursor.at += 1;
                Ok(cursor.values.next().expect("as many values as definitions at their level"))
            }
            Node::Struct(fields) => fields
                .iter()
                .map(|field| Ok((field.name.clone(), self.value(field)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
            Node::Wrapped(inner) => self.value(inner),
            Node::Map(pairs) => {
                let Value::Array(pairs) = self.value(pairs)? else { return Ok(Value::Null) };
                Ok(Value::Object(pairs.into_iter().filter_map(pair).collect::<Map<_, _>>()))
            }
        }
    }

    fn cursor(&mut self, leaf: usize) -> &mut Cursor {
        self.0[leaf].as_mut().expect("all columns of a field are read, or none")
    }
}

/// A key and its value, from an object of the two in this order.
fn pair(pair: Value) -> Option<(String, Value)> {
    let Value::Object(pair) = pair else { return None };
    let mut both = pair.into_iter().map(|(_, value)| value);
    let key = match both.next()? {
        Value::String(key) => key,
        other => other.to_string(),
    };
    Some((key, both.next()?))
}
