//! Reading JSON files key by key, with errors that name the file, the key and the value.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::files::read_text;
use crate::error::{Error, Result};
use crate::wording::shortened;

/// A JSON object, the file it came from, and the keys that led to it.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub path: PathBuf,
    prefix: String,
    pub map: Map<String, Value>,
}

impl Object {
    pub fn read(path: &Path) -> Result<Object> {
        let text = read_text(path)?;
        let value = serde_json::from_str(&text).map_err(Error::json(path))?;
        Object::new(path, value)
    }

    /// Reads the file, or takes it as an empty object if it is not there.
    pub fn read_optional(path: &Path) -> Result<Object> {
        if path.exists() { Object::read(path) } else { Object::new(path, Value::Object(Map::new())) }
    }

    pub fn new(path: &Path, value: Value) -> Result<Object> {
        match value {
            Value::Object(map) => Ok(Object { path: path.to_path_buf(), prefix: String::new(), map }),
            other => Err(Error::Value {
                path: path.to_path_buf(),
                key: "(the file)".into(),
                found: abbreviated(&other),
                expected: "a JSON object".into(),
            }),
        }
    }

    /// The value of `key`, with `null` taken as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn error(&self, key: &str, expected: impl Into<String>) -> Error {
        Error::Value {
            path: self.path.clone(),
            key: shortened(&format!("{}{key}", self.prefix), 200),
            found: self.map.get(key).map_or("missing".into(), abbreviated),
            expected: expected.into(),
        }
    }

    pub fn object(&self, key: &str) -> Result<Option<Object>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Object { path: self.path.clone(), prefix: format!("{}{key}.", self.prefix), map: map.clone() }))
            }
            Some(_) => Err(self.error(key, "an object")),
        }
    }

    pub fn string(&self, key: &str) -> Result<Option<String>> {
        self.optional(key, "a string", |value| value.as_str().map(String::from))
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.optional(key, "true or false", Value::as_bool)
    }

    /// A positive integer.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.optional(key, "a positive integer", |value| {
            value.as_u64().filter(|&n| n > 0 && n <= u64::from(u32::MAX)).map(|n| n as usize)
        })
    }

    /// A finite number above zero.
    pub fn positive(&self, key: &str) -> Result<Option<f64>> {
        self.optional(key, "a number above 0", |value| value.as_f64().filter(|&x| x > 0.0 && x.is_finite()))
    }

    /// A token id, or none.
    pub fn id(&self, key: &str) -> Result<Option<u32>> {
        self.optional(key, "a token id", as_id)
    }

    /// A token id or a list of them; an absent key is an empty list.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let ids = self.optional(key, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(as_id).collect(),
            one => as_id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.optional(key, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(String::from)).collect()
        })
    }

    /// The value of `key` as `read` takes it, absent where the key is; `expected` words the error.
    pub fn optional<T>(&self, key: &str, expected: &str, read: impl FnOnce(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.error(key, expected)),
        }
    }

    /// `value`, or the error that `key` is missing.
    pub fn required<T>(&self, key: &str, expected: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(key, expected))
    }
}

fn as_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A value as JSON, cut where it would fill the screen.
pub(crate) fn abbreviated(value: &Value) -> String {
    shortened(&value.to_string(), 60)
}
