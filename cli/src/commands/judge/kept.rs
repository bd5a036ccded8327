//! What was answered and judged, kept beside the file that it is for, so that nothing is asked twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wgtune_models::error::{Error, Result};
use wgtune_models::formats::files::{append_to, lock};

/// What is kept, in a file that is no other command's until this is dropped.
pub struct Kept {
    path: PathBuf,
    file: File,
    found: HashMap<(String, usize), Value>,
}

/// One thing that was found.
#[derive(Serialize, Deserialize)]
struct Line {
    kind: String,
    number: usize,
    value: Value,
}

impl Kept {
    /// That of a file, for work that depends on these. A file that is there is replaced where this is kept of it.
    ///
    /// # Errors
    /// Where it is to be gone on with, work that depends on others, naming the first; where it is not, any that is there. One that
    /// another command is writing.
    pub fn open(out: &Path, of: &Map<String, Value>, resumes: bool, overwrites: bool) -> Result<Kept> {
        let mut name = out.file_name().unwrap_or_default().to_os_string();
        name.push(".asked");
        let path = out.with_file_name(name);
        let (shown, is_there) = (path.display().to_string(), path.exists());
        let refused = |message: String| Err(Error::Data { message });
        if out.exists() && !overwrites && !(resumes && is_there) {
            return refused(format!("{} is there already: choose another name, or --overwrite it", out.display()));
        }
        if is_there && !overwrites && !resumes {
            return refused(format!(
                "{shown} is what an earlier command began: --resume goes on with it, --overwrite begins anew"
            ));
        }
        let Some(mut file) = lock(&path)? else {
            return refused(format!("another command is writing {shown}: expected another --out"));
        };
        let mut text = String::new();
        if !overwrites {
            file.read_to_string(&mut text).map_err(Error::io(&path))?;
        }
        // The last line may be torn.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        let mut lines = text.lines();
        match lines.next() {
            Some(head) => {
                let before: Map<String, Value> = serde_json::from_str(head).unwrap_or_default();
                if let Some((key, now)) = of.iter().find(|(key, now)| before.get(*key) != Some(now)) {
                    let before = before.get(key).unwrap_or(&Value::Null);
                    return refused(format!("{shown} began with {key} {before}, and now it is {now}; expected the same"));
                }
                file.set_len(text.len() as u64).map_err(Error::io(&path))?;
            }
            None => {
                file.set_len(0).map_err(Error::io(&path))?;
                let head = serde_json::to_string(of).expect("options are JSON");
                append_to(&mut file, &path, format!("{head}\n").as_bytes())?;
            }
        }
        let found = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
        Ok(Kept { found: found.map(|line| ((line.kind, line.number), line.value)).collect(), path, file })
    }

    /// What was found of this number.
    pub fn get<T: DeserializeOwned>(&self, kind: &str, number: usize) -> Option<T> {
        self.found.get(&(kind.into(), number)).and_then(|value| serde_json::from_value(value.clone()).ok())
    }

    /// Keeps what was found.
    ///
    /// # Errors
    /// A full disk.
    pub fn add(&mut self, kind: &str, number: usize, value: impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).expect("plain data is JSON");
        let line = Line { kind: kind.into(), number, value };
        let text = serde_json::to_string(&line).expect("plain data is JSON");
        append_to(&mut self.file, &self.path, format!("{text}\n").as_bytes())?;
        self.found.insert((line.kind, line.number), line.value);
        Ok(())
    }
}
