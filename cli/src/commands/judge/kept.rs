//! What was answered and judged, kept beside the file that it is for, so that nothing is asked twice.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wgtune_models::error::{Error, Result};
use wgtune_models::formats::files::{append_bytes, read_text, write_bytes};

/// What is kept.
pub struct Kept {
    path: PathBuf,
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
    /// Where it is to be gone on with, work that depends on others, naming the first; where it is not, any that is there.
    pub fn open(out: &Path, of: &Map<String, Value>, resumes: bool, overwrites: bool) -> Result<Kept> {
        let mut name = out.file_name().unwrap_or_default().to_os_string();
        name.push(".asked");
        let path = out.with_file_name(name);
        let mut kept = Kept { path, found: HashMap::new() };
        let shown = kept.path.display().to_string();
        let refused = |message: String| Err(Error::Data { message });
        if out.exists() && !overwrites && !(resumes && kept.path.exists()) {
            return refused(format!("{} is there already: choose another name, or --overwrite it", out.display()));
        }
        if kept.path.exists() && !overwrites {
            if !resumes {
                return refused(format!(
                    "{shown} is what an earlier command began: --resume goes on with it, --overwrite begins anew"
                ));
            }
            let text = read_text(&kept.path)?;
            let mut lines = text.lines();
            let before: Map<String, Value> = lines.next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
            if let Some((key, now)) = of.iter().find(|(key, now)| before.get(*key) != Some(now)) {
                let before = before.get(key).unwrap_or(&Value::Null);
                return refused(format!("{shown} began with {key} {before}, and now it is {now}; expected the same"));
            }
            // The last line may be torn.
            let lines = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
            kept.found = lines.map(|line| ((line.kind, line.number), line.value)).collect();
        }
        let head = serde_json::to_string(of).expect("options are JSON");
        let mut all: Vec<_> = kept.found.iter().collect();
        all.sort_by_key(|(key, _)| *key);
        let lines: String = all.into_iter().map(|((kind, number), value)| line(kind, *number, value.clone())).collect();
        write_bytes(&kept.path, format!("{head}\n{lines}").as_bytes())?;
        Ok(kept)
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
        append_bytes(&self.path, line(kind, number, value.clone()).as_bytes())?;
        self.found.insert((kind.into(), number), value);
        Ok(())
    }
}

fn line(kind: &str, number: usize, value: Value) -> String {
    format!("{}\n", serde_json::to_string(&Line { kind: kind.into(), number, value }).expect("plain data is JSON"))
}
