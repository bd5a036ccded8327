//! A row's JSON made into its content. Errors are sentences; who calls adds file and line.

use serde_json::{Map, Value, json};

use super::columns::Columns;
use super::judged;
use super::{Content, Format, IGNORE};
use crate::formats::json::abbreviated;
use crate::wording::listed;

/// The keys that tell each form, the most telling first.
const KEYS: [(Format, &[&str]); 6] = [
    (Format::Ids, &["input_ids"]),
    (Format::Messages, &["messages"]),
    (Format::ShareGpt, &["conversations"]),
    (Format::PromptCompletion, &["prompt", "completion"]),
    (Format::Alpaca, &["instruction", "output"]),
    (Format::Text, &["text"]),
];

/// The same of those that are only looked for where they are wanted.
const WANTED: [(Format, &[&str]); 4] = [
    (Format::Preference, &["chosen", "rejected"]),
    (Format::Ranked, &["prompt", "answers"]),
    (Format::Labelled, &["prompt", "completion", "label"]),
    (Format::Prompt, &["prompt"]),
];

/// Every key that a form has.
pub const NAMES: [&str; 18] = [
    "text",
    "prompt",
    "completion",
    "messages",
    "instruction",
    "input",
    "output",
    "system",
    "history",
    "conversations",
    "tools",
    "input_ids",
    "labels",
    "chosen",
    "rejected",
    "margin",
    "answers",
    "label",
];

/// The form of a row, by its keys: first those that are mapped, whatever else the row has.
pub fn recognise(row: &Value, columns: &Columns) -> Result<Format, String> {
    let Value::Object(row) = row else {
        return Err(format!("{}; expected an object", abbreviated(row)));
    };
    if columns.template().is_some() {
        return Ok(Format::Fields);
    }
    let has_all = |keys: &[&str]| keys.iter().all(|key| row.contains_key(*key));
    // A prompt alone says the least.
    let (alone, wanted): (Vec<_>, Vec<_>) =
        WANTED.iter().filter(|(format, _)| columns.wanted().contains(format)).partition(|(format, _)| *format == Format::Prompt);
    let forms: Vec<_> = wanted.into_iter().chain(&KEYS).chain(alone).collect();
    let mapped = forms.iter().filter(|(_, keys)| keys.iter().any(|key| columns.names(key)));
    if let Some((format, _)) = mapped.chain(&forms).find(|(_, keys)| has_all(keys)) {
        return Ok(*format);
    }
    let known: Vec<String> = forms.iter().map(|(format, keys)| format!("{format} (`{}`)", keys.join("`, `"))).collect();
    let found = if row.is_empty() { "no keys".into() } else { format!("the keys {}", listed(row.keys())) };
    Err(format!("a row of unknown form, with {found}; expected one of: {}", known.join("; ")))
}

/// What a row of this form holds.
pub fn content(format: Format, row: &Value, columns: &Columns) -> Result<Content, String> {
    match format {
        Format::Ids => ids(row),
        Format::Messages => Ok(Content::Conversation { messages: conversation(row, "messages")?, tools: tools(row)? }),
        Format::ShareGpt => share_gpt(row),
        Format::PromptCompletion => prompt_completion(row),
        Format::Alpaca => alpaca(row),
        Format::Text => Ok(Content::Text(string(row, "text")?.into())),
        Format::Fields => fields(row, columns),
        Format::Preference => judged::preference(row),
        Format::Ranked => judged::ranked(row),
        Format::Labelled => judged::labelled(row, prompt_completion(row)?),
        Format::Prompt => judged::prompt(row),
    }
}

fn fields(row: &Value, columns: &Columns) -> Result<Content, String> {
    let (Some(template), Value::Object(fields)) = (columns.template(), row) else {
        return Err("fields without a template; expected rows of another form".into());
    };
    let prompt = template.fill(fields)?;
    let wants = |format| columns.wanted().contains(&format);
    let filled = |key| Ok::<_, String>(Content::Filled { prompt: prompt.clone(), completion: string(row, key)?.into() });
    match (row["completion"].is_null(), row["label"].is_null()) {
        (true, _) if wants(Format::Prompt) => Ok(Content::Filled { prompt, completion: String::new() }),
        (true, _) if wants(Format::Preference) => judged::pair(row, filled("chosen")?, filled("rejected")?),
        (false, false) if wants(Format::Labelled) => judged::labelled(row, filled("completion")?),
        _ => filled("completion"),
    }
}

fn ids(row: &Value) -> Result<Content, String> {
    let list = |key: &str| {
        let list = row[key].as_array();
        list.ok_or_else(|| wrong(row, key, "a list of token ids"))
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != IGNORE);
    let ids: Option<Vec<_>> = list("input_ids")?.iter().map(id).collect();
    let ids = ids.ok_or_else(|| wrong(row, "input_ids", "a list of token ids"))?;
    let labels = if row["labels"].is_null() {
        ids.clone()
    } else {
        let label = |value: &Value| if *value == -100 { Some(IGNORE) } else { id(value) };
        let labels: Option<Vec<_>> = list("labels")?.iter().map(label).collect();
        labels.ok_or_else(|| wrong(row, "labels", "a list of token ids and -100"))?
    };
    if ids.len() != labels.len() {
        return Err(format!("{} `labels`; expected as many as `input_ids`, {}", labels.len(), ids.len()));
    }
    Ok(Content::Ids { ids, labels })
}

fn prompt_completion(row: &Value) -> Result<Content, String> {
    match (&row["prompt"], &row["completion"]) {
        (Value::Array(_), Value::Array(_)) => {
            let mut messages = list_of_messages(row, "prompt")?;
            let learnt_from = messages.len();
            messages.extend(list_of_messages(row, "completion")?);
            if learnt_from == messages.len() {
                return Err("`completion` is empty; expected a message".into());
            }
            Ok(Content::Exchange { messages, learnt_from, tools: tools(row)? })
        }
        (Value::Array(_), _) => Err(wrong(row, "completion", "a list of messages, as `prompt` is")),
        _ => Ok(Content::Completion { prompt: string(row, "prompt")?.into(), completion: string(row, "completion")?.into() }),
    }
}

/// The user's turn is the instruction, and the input on the next line.
fn alpaca(row: &Value) -> Result<Content, String> {
    let mut messages = Vec::new();
    if let Some(system) = optional_string(row, "system")? {
        messages.push(message("system", system));
    }
    let pairs = "a list of pairs of what the user and the assistant said";
    if !row["history"].is_null() {
        let history = row["history"].as_array().ok_or_else(|| wrong(row, "history", pairs))?;
        for pair in history {
            let (Some(user), Some(assistant)) = (pair[0].as_str(), pair[1].as_str()) else {
                return Err(wrong(row, "history", pairs));
            };
            messages.push(message("user", user));
            messages.push(message("assistant", assistant));
        }
    }
    let instruction = string(row, "instruction")?;
    messages.push(match optional_string(row, "input")? {
        Some(input) if !instruction.is_empty() => message("user", &format!("{instruction}\n{input}")),
        Some(input) => message("user", input),
        None => message("user", instruction),
    });
    let learnt_from = messages.len();
    messages.push(message("assistant", string(row, "output")?));
    Ok(Content::Exchange { messages, learnt_from, tools: None })
}

fn share_gpt(row: &Value) -> Result<Content, String> {
    let expected = "a list of objects with `from` and `value`";
    let turns = row["conversations"].as_array().ok_or_else(|| wrong(row, "conversations", expected))?;
    let mut messages = Vec::new();
    if let Some(system) = optional_string(row, "system")? {
        messages.push(message("system", system));
    }
    for turn in turns {
        let (Some(from), Some(value)) = (turn["from"].as_str(), turn["value"].as_str()) else {
            return Err(format!("`conversations` holds {}; expected {expected}", abbreviated(turn)));
        };
        messages.push(match from {
            "human" | "user" => message("user", value),
            "gpt" | "assistant" => message("assistant", value),
            "system" => message("system", value),
            "observation" | "tool" => message("tool", value),
            "function_call" => function_call(value),
            _ => {
                return Err(format!("`from` is \"{from}\"; expected human, gpt, system, observation or function_call"));
            }
        });
    }
    check_conversation(&messages, "conversations")?;
    Ok(Content::Conversation { messages, tools: tools(row)? })
}

/// A call is a JSON object with `name` and `arguments`, or a list of them; anything else is kept as text.
fn function_call(text: &str) -> Value {
    let calls = match serde_json::from_str(text) {
        Ok(Value::Array(calls)) => calls,
        Ok(call) => vec![call],
        Err(_) => Vec::new(),
    };
    if calls.is_empty() || calls.iter().any(|call| !call["name"].is_string()) {
        return message("assistant", text);
    }
    let calls: Vec<_> = calls.into_iter().map(|function| json!({"type": "function", "function": function})).collect();
    json!({"role": "assistant", "content": "", "tool_calls": calls})
}

/// The tools that are offered: a list, or such a list written as text. A bare function is wrapped.
pub(super) fn tools(row: &Value) -> Result<Option<Value>, String> {
    let expected = "a list of functions, or such a list as text";
    let list = match &row["tools"] {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => serde_json::from_str(text).map_err(|_| wrong(row, "tools", expected))?,
        other => other.clone(),
    };
    let Value::Array(list) = list else {
        return Err(wrong(row, "tools", expected));
    };
    let wrap = |tool: Value| match tool.get("function") {
        None if tool.get("name").is_some() => json!({"type": "function", "function": tool}),
        _ => tool,
    };
    let list: Vec<_> = list.into_iter().map(wrap).collect();
    Ok((!list.is_empty()).then_some(Value::Array(list)))
}

fn conversation(row: &Value, key: &str) -> Result<Vec<Value>, String> {
    let messages = list_of_messages(row, key)?;
    check_conversation(&messages, key)?;
    Ok(messages)
}

fn check_conversation(messages: &[Value], key: &str) -> Result<(), String> {
    if messages.iter().any(|message| message["role"] == "assistant") {
        return Ok(());
    }
    Err(format!("nothing to learn: no message of `{key}` is the assistant's"))
}

pub(super) fn list_of_messages(row: &Value, key: &str) -> Result<Vec<Value>, String> {
    messages(&row[key]).map_err(|(found, expected)| match found {
        Some(found) => format!("`{key}` holds {found}; expected {expected}"),
        None => wrong(row, key, expected),
    })
}

/// The messages of a list: objects with `role` and `content`, which is text or a list of parts of it.
///
/// # Errors
/// What the list holds, if it is one, and what was expected.
pub fn messages(list: &Value) -> Result<Vec<Value>, (Option<String>, &'static str)> {
    let expected = "a list of objects with `role` and `content`, both text";
    let list = list.as_array().ok_or((None, expected))?;
    for message in list {
        let calls = message.get("tool_calls").is_some_and(|calls| !calls.is_null());
        let is_content = match &message["content"] {
            Value::String(_) => true,
            Value::Null => calls,
            Value::Array(parts) => {
                parts.iter().try_for_each(part)?;
                true
            }
            _ => false,
        };
        if !message["role"].is_string() || !is_content {
            return Err((Some(abbreviated(message)), expected));
        }
    }
    Ok(list.clone())
}

fn part(part: &Value) -> Result<(), (Option<String>, &'static str)> {
    let expected = "parts of the type `text`, with `text`";
    match &part["type"] {
        Value::String(kind) if kind != "text" => Err((Some(format!("a part of the type `{kind}`")), expected)),
        Value::String(_) if part["text"].is_string() => Ok(()),
        _ => Err((Some(format!("the part {}", abbreviated(part))), expected)),
    }
}

fn message(role: &str, content: &str) -> Value {
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    message.insert("content".into(), content.into());
    Value::Object(message)
}

pub(super) fn string<'a>(row: &'a Value, key: &str) -> Result<&'a str, String> {
    row[key].as_str().ok_or_else(|| wrong(row, key, "text"))
}

/// Text that may be absent, `null` or empty.
fn optional_string<'a>(row: &'a Value, key: &str) -> Result<Option<&'a str>, String> {
    match &row[key] {
        Value::Null => Ok(None),
        _ => Ok(Some(string(row, key)?).filter(|text| !text.is_empty())),
    }
}

pub(super) fn wrong(row: &Value, key: &str, expected: &str) -> String {
    let found = row.get(key).map_or("missing".into(), abbreviated);
    format!("`{key}` is {found}; expected {expected}")
}
