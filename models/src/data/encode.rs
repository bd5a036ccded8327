//! Rows made into token ids, and labels that say which of them carry loss.

use std::fmt;

use serde_json::Value;

use super::IGNORE;
use super::rows::{Content, Dataset, Row};
use crate::error::{Error, Result};
use crate::formats::chat_template::ChatTemplate;
use crate::formats::tokenizer::Tokenizer;
use crate::wording::counted;

/// A sequence to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// For every token, its id, or [`IGNORE`] if it carries no loss. Not shifted.
    pub labels: Vec<u32>,
}

/// What rows are encoded with.
#[derive(Debug, Clone, Copy)]
pub struct Encoder<'a> {
    /// The model's tokenizer; rows of ids need none.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The model's chat template.
    pub template: &'a ChatTemplate,
    /// Rows of the model's embedding.
    pub vocab_size: usize,
    /// Tokens of the longest example. Longer rows are cut at their end.
    pub max_length: usize,
    /// Whether plain texts longer than that are cut into several examples instead.
    pub split_text: bool,
}

/// What became of the rows. It prints as a sentence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows that were read.
    pub rows: usize,
    /// Examples that came of them.
    pub examples: usize,
    /// Rows that were cut at `max_length`.
    pub truncated: usize,
    /// Rows left out because no token with loss was left.
    pub without_loss: usize,
    /// Rows of which some of the assistant's turns carry no loss, or whose loss begins at the first token
    /// that differs, because the template writes a turn otherwise once another follows it.
    pub unstable: usize,
    /// Tokens of all examples.
    pub tokens: usize,
    /// Those of them that are learnt to be predicted.
    pub trained_tokens: usize,
}

/// A conversation's ids: the template's text, whose special tokens become their ids. The template says how
/// a text opens; only the default one leaves that to the tokenizer. With `add_generation_prompt` the
/// assistant's turn is opened, which is how generation asks for an answer. Calls of tools and lists of parts
/// are made text where the template does not look at them.
///
/// # Errors
/// [`Error::ChatTemplate`] if the template refuses the conversation, [`Error::Tokenizer`].
pub fn conversation_ids(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<&Value>,
    add_generation_prompt: bool,
) -> Result<Vec<u32>> {
    let rendered = template.render(&spelled_out(template, messages), tools, add_generation_prompt)?;
    let mut ids = tokenizer.encode(&rendered.text, false)?;
    ids.splice(0..0, opening(tokenizer, template)?);
    Ok(ids)
}

/// A conversation with nothing in it that the template would drop: calls of tools as plain JSON in `content`, and a list of
/// parts as one text, where the template's source names neither. Done twice, it is as done once.
fn spelled_out(template: &ChatTemplate, messages: &[Value]) -> Vec<Value> {
    let source = template.source();
    let (takes_calls, takes_parts) = (source.contains("tool_calls"), source.contains("'text'") || source.contains("\"text\""));
    let mut messages = messages.to_vec();
    for message in messages.iter_mut().filter_map(Value::as_object_mut) {
        if let Some(Value::Array(parts)) = message.get("content").filter(|_| !takes_parts) {
            let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            message.insert("content".into(), text.into());
        }
        if let Some(Value::Array(calls)) = message.get("tool_calls").filter(|_| !takes_calls) {
            let functions = calls.iter().map(|call| call["function"].to_string());
            let functions = functions.collect::<Vec<_>>().join("\n");
            let content = message.get("content").and_then(Value::as_str).unwrap_or_default();
            let content = format!("{content}{functions}");
            message.insert("content".into(), content.into());
            message.shift_remove("tool_calls");
        }
    }
    messages
}

fn opening(tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Option<u32>> {
    let opens = template.is_default() && tokenizer.opens_with_bos()?;
    Ok(tokenizer.bos_id().filter(|_| opens))
}

impl Example {
    /// An example of which the tokens from `start` on carry loss.
    fn learnt_from(start: usize, ids: Vec<u32>) -> Example {
        let mut labels = ids.clone();
        labels[..start.min(ids.len())].fill(IGNORE);
        Example { ids, labels }
    }

    /// Tokens that are learnt to be predicted: the first never is, since nothing comes before it.
    pub fn trained_tokens(&self) -> usize {
        let labels = self.labels.iter().skip(1);
        labels.filter(|&&label| label != IGNORE).count()
    }
}

impl Encoder<'_> {
    /// Encodes rows of `dataset`.
    ///
    /// Loss falls on a completion, on what the assistant says in a conversation, on a whole text, or where
    /// `labels` says. The end of a prompt is where its tokens and those of prompt and completion part.
    /// A text or completion that does not end in an end-of-text token is given one.
    ///
    /// # Errors
    /// [`Error::Row`] for a row the tokenizer or the template refuses, or with an id past the vocabulary;
    /// [`Error::Data`] if no row is left with a token to learn.
    pub fn encode(&self, dataset: &Dataset, rows: &[Row]) -> Result<(Vec<Example>, Report)> {
        if self.max_length < 2 {
            let message = format!("a length of at most {}; expected at least 2", self.max_length);
            return Err(Error::Data { message });
        }
        let mut report = Report { rows: rows.len(), ..Report::default() };
        let mut examples = Vec::new();
        for row in rows {
            let encoded = self.row(&row.content, &mut report);
            let example = encoded.map_err(|error| match error {
                // Where the data is matters more than where the template or the tokenizer is.
                Error::ChatTemplate { message, .. } | Error::Tokenizer { message, .. } | Error::Data { message } => {
                    dataset.error_at(row, message)
                }
                other => other,
            })?;
            let fitted = self.fit(example, &row.content, &mut report);
            examples.extend(fitted.into_iter().filter(|example| example.trained_tokens() > 0));
        }
        report.examples = examples.len();
        report.tokens = examples.iter().map(|example| example.ids.len()).sum();
        report.trained_tokens = examples.iter().map(Example::trained_tokens).sum();
        if examples.is_empty() && !rows.is_empty() {
            let message = format!("nothing to learn: {report}; expected rows with a completion within the length");
            return Err(Error::Data { message });
        }
        Ok((examples, report))
    }

    fn row(&self, content: &Content, report: &mut Report) -> Result<Example> {
        match content {
            Content::Ids { ids, labels } => self.given(ids, labels),
            Content::Text(text) => self.completion("", text),
            Content::Completion { prompt, completion } => self.completion(prompt, completion),
            Content::Exchange { messages, learnt_from, tools } => {
                let messages = spelled_out(self.template, messages);
                self.exchange(&messages, *learnt_from, tools.as_ref(), report)
            }
            Content::Conversation { messages, tools } => {
                let messages = spelled_out(self.template, messages);
                if self.template.marks_generation() {
                    self.marked(&messages, tools.as_ref())
                } else {
                    self.turns(&messages, tools.as_ref(), report)
                }
            }
        }
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.ok_or_else(|| Error::Data {
            message: "a row of text, and the model has no tokenizer.json; expected rows of `input_ids`".into(),
        })
    }

    fn given(&self, ids: &[u32], labels: &[u32]) -> Result<Example> {
        let past = |id: &&u32| **id != IGNORE && **id as usize >= self.vocab_size;
        if let Some(id) = ids.iter().chain(labels).find(past) {
            let message = format!("token id {id}; expected below the model's `vocab_size`, {}", self.vocab_size);
            return Err(Error::Data { message });
        }
        Ok(Example { ids: ids.to_vec(), labels: labels.to_vec() })
    }

    fn completion(&self, prompt: &str, completion: &str) -> Result<Example> {
        let tokenizer = self.tokenizer()?;
        let mut ids = tokenizer.encode(&format!("{prompt}{completion}"), true)?;
        let start = if prompt.is_empty() { 0 } else { common_prefix(&ids, &tokenizer.encode(prompt, true)?) };
        let ended = ids.last().is_some_and(|last| tokenizer.eos_ids().contains(last));
        if !ended {
            ids.extend(tokenizer.eos_id());
        }
        Ok(Example::learnt_from(start, ids))
    }

    fn exchange(&self, messages: &[Value], learnt_from: usize, tools: Option<&Value>, report: &mut Report) -> Result<Example> {
        let ids = self.ids(messages, tools, false)?;
        let prompt = &messages[..learnt_from];
        let start = common_prefix(&ids, &self.ids(prompt, tools, true)?);
        let text = self.template.render(messages, tools, false)?.text;
        let stable = text.starts_with(&self.template.render(prompt, tools, false)?.text);
        report.unstable += usize::from(!stable);
        Ok(Example::learnt_from(start, ids))
    }

    /// Loss on the tokens that begin within what the template marks.
    fn marked(&self, messages: &[Value], tools: Option<&Value>) -> Result<Example> {
        let tokenizer = self.tokenizer()?;
        let rendered = self.template.render(messages, tools, false)?;
        let mut example = Example { ids: Vec::new(), labels: Vec::new() };
        if let Some(id) = opening(tokenizer, self.template)? {
            example.ids.push(id);
            example.labels.push(IGNORE);
        }
        for (id, bytes) in tokenizer.encode_with_offsets(&rendered.text)? {
            let learnt = rendered.generated.iter().any(|span| span.contains(&bytes.start));
            example.ids.push(id);
            example.labels.push(if learnt { id } else { IGNORE });
        }
        Ok(example)
    }

    /// Loss on each turn of the assistant, found by rendering the conversation up to it and up to its end.
    fn turns(&self, messages: &[Value], tools: Option<&Value>, report: &mut Report) -> Result<Example> {
        let text = self.template.render(messages, tools, false)?.text;
        let ids = self.ids(messages, tools, false)?;
        let mut labels = vec![IGNORE; ids.len()];
        let is_stable = |messages: &[Value]| {
            let prefix = self.template.render(messages, tools, false);
            // A template may refuse half a conversation.
            prefix.is_ok_and(|prefix| text.starts_with(&prefix.text))
        };
        let is_assistant = |index: &usize| messages[*index]["role"] == "assistant";
        let mut skipped = false;
        let mut last = 0;
        for turn in (0..messages.len()).filter(is_assistant) {
            last = turn;
            if !(turn == 0 || is_stable(&messages[..turn])) || !is_stable(&messages[..=turn]) {
                skipped = true;
                continue;
            }
            let start = common_prefix(&ids, &self.ids(&messages[..turn], tools, true)?);
            let end = common_prefix(&ids, &self.ids(&messages[..=turn], tools, false)?);
            if start < end {
                labels[start..end].copy_from_slice(&ids[start..end]);
            }
        }
        report.unstable += usize::from(skipped);
        if labels.iter().all(|&label| label == IGNORE) {
            return self.exchange(messages, last, tools, &mut Report::default());
        }
        Ok(Example { ids, labels })
    }

    fn ids(&self, messages: &[Value], tools: Option<&Value>, prompt: bool) -> Result<Vec<u32>> {
        conversation_ids(self.tokenizer()?, self.template, messages, tools, prompt)
    }

    /// Cuts an example to the length, or into several.
    fn fit(&self, mut example: Example, content: &Content, report: &mut Report) -> Vec<Example> {
        if example.ids.len() > self.max_length && self.split_text && matches!(content, Content::Text(_)) {
            // Windows share a token: the last of one is the first of the next, whose label is never used.
            let starts = (0..example.ids.len() - 1).step_by(self.max_length - 1);
            let window = |start: usize| {
                let end = (start + self.max_length).min(example.ids.len());
                Example { ids: example.ids[start..end].to_vec(), labels: example.labels[start..end].to_vec() }
            };
            return starts.map(window).collect();
        }
        if example.ids.len() > self.max_length {
            report.truncated += 1;
            example.ids.truncate(self.max_length);
            example.labels.truncate(self.max_length);
        }
        report.without_loss += usize::from(example.trained_tokens() == 0);
        vec![example]
    }
}

/// How many tokens two sequences begin with alike.
fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, examples] = [counted(self.rows, "row"), counted(self.examples, "example")];
        write!(f, "{rows}, {examples} of {}, {} of them trained", counted(self.tokens, "token"), self.trained_tokens)?;
        for (count, what) in [
            (self.truncated, "cut at the length"),
            (self.without_loss, "left out for want of a token to learn"),
            (self.unstable, "that the template writes otherwise once a turn follows"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
