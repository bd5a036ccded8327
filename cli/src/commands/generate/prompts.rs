//! `wgtune generate --prompts`: a file of rows, of which many run together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};
use wgtune_models::Error;
use wgtune_models::data::conversation::conversation_ids;
use wgtune_models::data::rows::{messages, objects};
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::files::write_bytes;
use wgtune_models::generate::{Generated, Listener, Request, generate};
use wgtune_models::tasks::Table;
use wgtune_models::wording::{counted, listed, shortened};

use super::{Answer, SamplingArguments, Session, stop};
use crate::common::{Outcome, Stopped, Task, note, on_interrupt, print_line};
use crate::numbers::{MOST_TOKENS, above_zero, at_least_zero, seed, share, whole};
use crate::progress::Progress;

pub const HELP: &str = r#"A file of texts to continue, or of conversations to answer: JSON Lines, a JSON array,
CSV, TSV or Parquet, and .gz or .zst of them. A JSON line comes of each row, in the file's order.

  {"prompt": "Once upon a time"}
  {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
  {"prompt": "Once upon a time", "adapter": "adapters/tales"}
  {"prompt": "Once upon a time", "task": "tales"}
  {"fields": {"question": "Why?"}, "task": "answers"}

A row's adapter, a folder, stands in the place of --adapter, and its task is one of the table that
--adapter is. Fields fill the template that the adapter keeps. Rows of different adapters, whatever
their methods, run together.

A row's max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed and stop (a text, or a
list of them) stand in the place of the options. Without a seed of its own, row i of 0, 1, 2 …
draws from --seed plus i."#;

/// The keys that say what is continued.
const TEXTS: [&str; 3] = ["prompt", "messages", "fields"];
const KEYS: &str =
    "prompt or messages or fields, adapter or task, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed, stop";

/// A row of the file, as it will run.
struct Asked {
    /// `prompt`, `messages` or `fields`, as it was given.
    key: &'static str,
    value: Value,
    stops: Vec<String>,
    request: Request,
}

/// Answers all rows, or what an interrupt leaves of them.
pub fn run(session: &mut Session, file: &Path) -> Outcome {
    let rows = objects(file)?;
    let converses = rows.iter().any(|(_, row)| row.contains_key("messages"));
    let template = if converses { Some(session.template()?) } else { None };
    let error = |line, message| Error::Row { path: file.to_path_buf(), line, message };
    let base = &session.arguments.base;
    let table = base.table()?;
    let folder = |(line, row): &(usize, Map<String, Value>)| {
        let folder = adapter(row, table.as_ref(), base.task.task.is_some());
        folder.map_err(|message| error(*line, message))
    };
    let folders = rows.iter().map(folder).collect::<Result<Vec<Option<PathBuf>>, _>>()?;
    let mut models: BTreeMap<&Path, usize> = BTreeMap::new();
    for (folder, (line, _)) in folders.iter().zip(&rows) {
        if let Some(folder) = folder
            && !models.contains_key(folder.as_path())
        {
            session.put_on(folder).map_err(|refusal| error(*line, refusal.to_string()))?;
            models.insert(folder, session.models.len() - 1);
        }
    }
    let session = &*session;
    let ask = |(place, (line, row)): (usize, &(usize, Map<String, Value>))| {
        let model = folders[place].as_ref().map_or(0, |folder| models[folder.as_path()]);
        asked(session, model, template.as_ref(), row, place as u64).map_err(|message| error(*line, message))
    };
    let asked = rows.iter().enumerate().map(ask).collect::<Result<Vec<_>, _>>()?;
    let interrupted = on_interrupt("this token")?;
    let mut answers = Answers {
        rows: asked.iter().map(|row| Answer::new(&row.stops, session.stream(), false)).collect(),
        asked: &asked,
        interrupted: &interrupted,
        lines: BTreeMap::new(),
        next: 0,
        text: session.arguments.out.is_some().then(String::new),
        progress: Progress::new("rows", asked.len(), 0),
        tokens: 0,
    };
    let mut requests = asked.iter().map(|row| row.request.clone()).take_while(|_| !interrupted.load(Ordering::SeqCst));
    let begun = std::time::Instant::now();
    generate(&session.models, session.arguments.batch, &mut requests, &mut answers)?;
    let Answers { text, next, tokens, progress, .. } = answers;
    drop(progress);
    if let (Some(out), Some(text)) = (&session.arguments.out, text) {
        write_bytes(out, text.as_bytes())?;
    }
    if interrupted.load(Ordering::SeqCst) {
        return Err(Stopped(format!("stopped with {next} of {}", counted(asked.len(), "row"))).into());
    }
    let seconds = begun.elapsed().as_secs_f64();
    note(format!("{}, {}, {:.1} a second", counted(next, "row"), counted(tokens, "new token"), tokens as f64 / seconds));
    Ok(())
}

/// What a row asks for. Errors are sentences; who calls adds file and line.
fn asked(
    session: &Session,
    model: usize,
    template: Option<&ChatTemplate>,
    row: &Map<String, Value>,
    place: u64,
) -> Result<Asked, String> {
    let Some(tokenizer) = &session.tokenizer else { unreachable!("a file of prompts opened the tokenizer") };
    let mut sampling = session.arguments.sampling.clone();
    let mut own_seed = session.arguments.compute.seed.wrapping_add(place);
    for (key, value) in row {
        let set = of_row(&mut sampling, &mut own_seed, key, value);
        set.map_err(|expected| format!("`{key}` is {}: {expected}", shortened(&value.to_string(), 60)))?;
    }
    let mut given = TEXTS.into_iter().filter_map(|key| Some((key, row.get(key)?)));
    let (key, value) = match (given.next(), given.next()) {
        (Some((one, _)), Some((other, _))) => return Err(format!("both `{one}` and `{other}`; expected one of them")),
        (Some(given), None) => given,
        (None, _) => {
            let neither = "neither `prompt` nor `messages` nor `fields`";
            return Err(format!("{neither}; expected one of them, and of other keys any of {KEYS}"));
        }
    };
    let tuned = &session.models[model];
    let wrong = |expected: &str| format!("`{key}` is {}: expected {expected}", shortened(&value.to_string(), 60));
    let ids = match (key, value, template) {
        ("prompt", Value::String(text), _) => tuned.prompt(tokenizer, text),
        ("prompt", ..) => return Err(wrong("a text")),
        ("fields", Value::Object(fields), _) => tuned.filled(tokenizer, fields),
        (_, list, Some(template)) if key == "messages" => {
            let messages = messages(list)?;
            tuned.check_converses().and_then(|()| conversation_ids(tokenizer, template, &messages, None, true))
        }
        _ => return Err(wrong("an object of texts and numbers")),
    };
    let ids = ids.map_err(|error| error.to_string())?;
    if ids.is_empty() {
        return Err(format!("`{key}` is empty: expected at least one token"));
    }
    let max_new_tokens = sampling.new_tokens(session.base.blueprint(), tuned.positions(&ids))?;
    let request =
        Request { model, prompt: ids, max_new_tokens, ends: session.ends.clone(), sampling: sampling.sampling(own_seed) };
    Ok(Asked { key, value: value.clone(), stops: sampling.stop, request })
}

/// The folder of the adapter that a row names, itself or by a task of the table, which it has to unless one `is_picked` for all.
fn adapter(row: &Map<String, Value>, table: Option<&Table>, is_picked: bool) -> Result<Option<PathBuf>, String> {
    let named = |key: &str| row.get(key).and_then(Value::as_str).filter(|name| !name.is_empty());
    let folder = match (named("adapter"), named("task"), table) {
        (Some(_), Some(_), _) => return Err("both `adapter` and `task`; expected one of them".into()),
        (Some(folder), None, _) => Task { task: None }.of(Path::new(folder)),
        (None, Some(task), Some(table)) => table.task(task),
        (None, Some(_), None) => return Err("`task` of no table: expected a table of tasks as --adapter".into()),
        (None, None, Some(table)) if !is_picked => {
            return Err(format!("no `task`; expected one of {}", listed(table.names())));
        }
        (None, None, _) => return Ok(None),
    };
    folder.map(Some).map_err(|error| error.to_string())
}

/// Puts a row's option in the place of the command's. A key takes what the option of its name takes.
fn of_row(sampling: &mut SamplingArguments, own_seed: &mut u64, key: &str, value: &Value) -> Result<(), String> {
    // Tables hold numbers as texts.
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    match key {
        _ if TEXTS.contains(&key) => {}
        // A cell that only other rows fill.
        _ if value.is_null() || value == "" => {}
        "adapter" if value.is_string() => {}
        "adapter" => return Err("expected the folder of an adapter".into()),
        "task" if value.is_string() => {}
        "task" => return Err("expected the name of a task".into()),
        "max_new_tokens" => sampling.max_new_tokens = Some(whole(1..=MOST_TOKENS)(&text)?),
        "temperature" => sampling.temperature = at_least_zero(&text)?,
        "top_k" => sampling.top_k = whole(0..=usize::MAX)(&text)?,
        "top_p" => sampling.top_p = share(&text)?,
        "repetition_penalty" => sampling.repetition_penalty = above_zero(&text)?,
        "seed" => *own_seed = seed(&text)?,
        "stop" => {
            let expected = || "expected a text, or a list of texts".to_string();
            let list = match value {
                Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(expected)?,
                _ => vec![value.as_str().ok_or_else(expected)?],
            };
            sampling.stop = list.into_iter().map(stop).collect::<Result<_, _>>()?;
        }
        _ => return Err(format!("expected no such key, but any of {KEYS}")),
    }
    Ok(())
}

/// The rows' texts, and the lines of those that have ended.
struct Answers<'a> {
    asked: &'a [Asked],
    rows: Vec<Answer<'a>>,
    interrupted: &'a AtomicBool,
    /// Those that have ended before a row that stands before them.
    lines: BTreeMap<usize, String>,
    /// The row whose line is the next.
    next: usize,
    /// The lines that are not printed, but written at the end.
    text: Option<String>,
    progress: Progress,
    tokens: usize,
}

impl Listener for Answers<'_> {
    fn token(&mut self, row: usize, token: u32) -> wgtune_models::Result<bool> {
        self.tokens += 1;
        Ok(self.rows[row].push(token)? && !self.interrupted.load(Ordering::SeqCst))
    }

    fn end(&mut self, row: usize, generated: &Generated) -> wgtune_models::Result<()> {
        let text = self.rows[row].finish(generated.finish_reason)?;
        let Asked { key, value, .. } = &self.asked[row];
        let mut line = json!({*key: value, "text": text, "new_tokens": generated.ids.len()});
        line["finish_reason"] = match self.interrupted.load(Ordering::SeqCst) {
            true => json!("interrupted"),
            false => json!(generated.finish_reason),
        };
        self.lines.insert(row, line.to_string());
        while let Some(line) = self.lines.remove(&self.next) {
            match &mut self.text {
                Some(text) => *text += &format!("{line}\n"),
                None => print_line(&line).map_err(|error| Error::Data { message: format!("standard output: {error}") })?,
            }
            self.next += 1;
        }
        self.progress.advance("");
        Ok(())
    }
}
