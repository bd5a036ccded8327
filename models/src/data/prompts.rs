//! Prompts that a model is to answer itself.

use serde_json::{Value, json};

use super::IGNORE;
use super::conversation::{conversation_ids, spelled_out};
use super::encode::Encoder;
use super::rows::{Content, Dataset, Row};
use super::template;
use crate::error::{Error, Result};

/// A prompt, and what somebody expects of its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its tokens, without the virtual ones that a text begins with.
    pub ids: Vec<u32>,
    /// It as it was given: a text, or a list of messages.
    pub given: Value,
    /// The completion of its row, where there is one.
    pub expected: Option<String>,
}

impl Encoder<'_> {
    /// The prompt of a row of `dataset`: all that comes before its completion, or before the last of the assistant's turns.
    ///
    /// # Errors
    /// [`Error::Row`] for a row that is a text alone, an empty prompt, and what tokenizer or template refuse.
    pub fn prompt(&self, dataset: &Dataset, row: &Row) -> Result<Prompt> {
        let found = self.prompt_of(&row.content).and_then(|prompt| match prompt.ids.is_empty() {
            true => Err(Error::Data { message: "an empty prompt; expected at least one token".into() }),
            false => Ok(prompt),
        });
        found.map_err(|error| match error {
            Error::ChatTemplate { message, .. } | Error::Tokenizer { message, .. } | Error::Data { message } => {
                dataset.error_at(row, message)
            }
            other => other,
        })
    }

    fn prompt_of(&self, content: &Content) -> Result<Prompt> {
        let converse = |messages: &[Value], tools: &Option<Value>| {
            conversation_ids(self.tokenizer()?, self.template, &spelled_out(self.template, messages), tools.as_ref(), true)
        };
        let some = |text: String| (!text.is_empty()).then_some(text);
        match content {
            Content::Completion { .. } | Content::Exchange { .. } | Content::Conversation { .. } => {
                let Asked { prompt: given, answer } = asked(content).expect("these have a prompt");
                let ids = match (content, &given) {
                    (Content::Exchange { tools, .. } | Content::Conversation { tools, .. }, Value::Array(messages)) => {
                        converse(messages, tools)?
                    }
                    _ => self.tokenizer()?.encode(given.as_str().unwrap_or_default(), true)?,
                };
                Ok(Prompt { ids, given, expected: some(answer) })
            }
            Content::Filled { prompt, completion } => {
                let ids = template::ids(prompt, self.tokenizer()?, self.vocab_size)?;
                let is_word = |id: &u32| (*id as usize) < self.vocab_size;
                let words: Vec<u32> = ids.iter().copied().filter(is_word).collect();
                let given = json!(self.tokenizer()?.decode(&words, true)?);
                Ok(Prompt { given, ids, expected: some(completion.clone()) })
            }
            Content::Ids { ids, labels } => {
                let end = labels.iter().position(|&label| label != IGNORE).unwrap_or(ids.len());
                Ok(Prompt { ids: ids[..end].to_vec(), given: json!(ids[..end]), expected: None })
            }
            Content::Ranked { answers, .. } => self.prompt_of(&answers[0]),
            Content::Labelled { answer, is_good } => {
                let prompt = self.prompt_of(answer)?;
                // What was called bad is not what is expected.
                Ok(Prompt { expected: prompt.expected.filter(|_| *is_good), ..prompt })
            }
            Content::Text(_) => Err(Error::Data { message: "a text; expected a prompt".into() }),
        }
    }
}

/// A prompt and an answer to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// A text, or a list of messages.
    pub prompt: Value,
    /// What comes behind it; empty where nothing does.
    pub answer: String,
}

/// What is asked in a row, and how it is answered: what comes before its completion, or before the last of the assistant's turns.
/// `None` where that takes a tokenizer, or where nothing is asked.
pub fn asked(content: &Content) -> Option<Asked> {
    let converse = |messages: &[Value], answer: usize| {
        let text = messages.get(answer).and_then(|message| message["content"].as_str());
        Asked { prompt: json!(messages[..answer]), answer: text.unwrap_or_default().into() }
    };
    match content {
        Content::Completion { prompt, completion } => Some(Asked { prompt: json!(prompt), answer: completion.clone() }),
        Content::Exchange { messages, learnt_from, .. } => Some(converse(messages, *learnt_from)),
        Content::Conversation { messages, .. } => {
            let last = messages.iter().rposition(|message| message["role"] == "assistant").unwrap_or(messages.len());
            Some(converse(messages, last))
        }
        Content::Labelled { answer, is_good } => {
            let asked = asked(answer)?;
            Some(if *is_good { asked } else { Asked { answer: String::new(), ..asked } })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_called_bad_is_no_answer() {
        let row = |is_good| {
            let answer = Content::Completion { prompt: "2 and 2 is".into(), completion: " 5".into() };
            asked(&Content::Labelled { answer: Box::new(answer), is_good }).map(|asked| (asked.prompt, asked.answer))
        };
        assert_eq!(row(true), Some((json!("2 and 2 is"), " 5".into())));
        assert_eq!(row(false), Some((json!("2 and 2 is"), String::new())));
    }
}
