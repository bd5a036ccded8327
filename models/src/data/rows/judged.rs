//! Rows of answers that somebody judged, and of prompts that nobody answered yet. Errors are sentences.

use serde_json::Value;

use super::Content;
use super::parse::{list_of_messages, string, tools, wrong};
use crate::formats::json::abbreviated;

/// `chosen` and `rejected`: texts behind the `prompt`, or conversations. Where there is no prompt, it is what both begin with.
pub fn preference(row: &Value) -> Result<Content, String> {
    let (chosen, rejected) = match (&row["chosen"], &row["rejected"]) {
        (Value::Array(_), Value::Array(_)) => conversations(row)?,
        (Value::Array(_), _) => return Err(wrong(row, "rejected", "a list of messages, as `chosen` is")),
        _ => {
            let (chosen, rejected) = (string(row, "chosen")?, string(row, "rejected")?);
            let at = if row["prompt"].is_null() { common_words(chosen, rejected) } else { 0 };
            let prompt = if row["prompt"].is_null() { &chosen[..at] } else { string(row, "prompt")? };
            let answer = |text: &str| Content::Completion { prompt: prompt.into(), completion: text[at..].into() };
            (answer(chosen), answer(rejected))
        }
    };
    pair(row, chosen, rejected)
}

/// Two answers, and the `margin` of their scores.
pub fn pair(row: &Value, chosen: Content, rejected: Content) -> Result<Content, String> {
    let margin = match &row["margin"] {
        Value::Null => 0.0,
        Value::String(text) if text.is_empty() => 0.0,
        // Tables hold numbers as texts.
        Value::String(text) => text.parse().map_err(|_| wrong(row, "margin", "a number"))?,
        number => number.as_f64().ok_or_else(|| wrong(row, "margin", "a number"))?,
    };
    if !margin.is_finite() {
        return Err(wrong(row, "margin", "a finite number"));
    }
    Ok(Content::Ranked { answers: vec![chosen, rejected], margin })
}

/// `prompt` and `answers`, the best first.
pub fn ranked(row: &Value) -> Result<Content, String> {
    let expected = "a list of at least two answers, the best first";
    let list = row["answers"].as_array().filter(|list| list.len() > 1).ok_or_else(|| wrong(row, "answers", expected))?;
    let answer = |answer: &Value| match (&row["prompt"], answer) {
        (Value::Array(_), Value::String(text)) => {
            let mut messages = list_of_messages(row, "prompt")?;
            let learnt_from = messages.len();
            messages.push(serde_json::json!({"role": "assistant", "content": text}));
            Ok(Content::Exchange { messages, learnt_from, tools: tools(row)? })
        }
        (_, Value::String(text)) => Ok(Content::Completion { prompt: string(row, "prompt")?.into(), completion: text.clone() }),
        _ => Err(format!("`answers` holds {}; expected texts", abbreviated(answer))),
    };
    Ok(Content::Ranked { answers: list.iter().map(answer).collect::<Result<_, String>>()?, margin: 0.0 })
}

/// An answer, and the row's `label`.
pub fn labelled(row: &Value, answer: Content) -> Result<Content, String> {
    let is_good = match &row["label"] {
        Value::Bool(is_good) => *is_good,
        Value::Number(number) if [Some(0.0), Some(1.0)].contains(&number.as_f64()) => number.as_f64() == Some(1.0),
        Value::String(text) if ["true", "1"].contains(&text.to_lowercase().as_str()) => true,
        Value::String(text) if ["false", "0"].contains(&text.to_lowercase().as_str()) => false,
        _ => return Err(wrong(row, "label", "true or false")),
    };
    Ok(Content::Labelled { answer: Box::new(answer), is_good })
}

/// A `prompt` alone: what has no completion yet.
pub fn prompt(row: &Value) -> Result<Content, String> {
    if row["prompt"].is_array() {
        let messages = list_of_messages(row, "prompt")?;
        return Ok(Content::Exchange { learnt_from: messages.len(), messages, tools: tools(row)? });
    }
    Ok(Content::Completion { prompt: string(row, "prompt")?.into(), completion: String::new() })
}

/// Answers that are conversations: behind the messages of the prompt, or, without those, behind what both begin with.
fn conversations(row: &Value) -> Result<(Content, Content), String> {
    let (chosen, rejected) = (list_of_messages(row, "chosen")?, list_of_messages(row, "rejected")?);
    let before = if row["prompt"].is_array() { list_of_messages(row, "prompt")? } else { Vec::new() };
    let alike = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    // Answers that are the same still are answers.
    let at = if before.is_empty() { alike.min(chosen.len().min(rejected.len()).saturating_sub(1)) } else { 0 };
    let answer = |key: &str, messages: Vec<Value>| {
        if messages.len() == at {
            return Err(wrong(row, key, "a list of messages that ends with an answer"));
        }
        Ok(Content::Exchange {
            learnt_from: before.len() + at,
            messages: before.iter().cloned().chain(messages).collect(),
            tools: tools(row)?,
        })
    };
    Ok((answer("chosen", chosen)?, answer("rejected", rejected)?))
}

/// Bytes that two texts begin with alike, up to the end of a word.
fn common_words(a: &str, b: &str) -> usize {
    let alike = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let end = a.floor_char_boundary(alike).min(b.floor_char_boundary(alike));
    a[..end].rfind(char::is_whitespace).unwrap_or(0)
}
