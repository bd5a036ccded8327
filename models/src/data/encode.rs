//! Rows made into token ids, and labels that say which of them carry loss.

use std::fmt;

use super::IGNORE;
use super::conversation::spelled_out;
use super::rows::{Content, Dataset, Row};
use super::template::{self, Piece};
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
    /// Ids of the virtual tokens that every example begins with, but one whose template has them stand elsewhere.
    pub opening: &'a [u32],
    /// Positions of the longest example, those before its tokens included. Longer rows are cut at their end.
    pub max_length: usize,
    /// Positions that a prefix of keys takes before those.
    pub prefix: usize,
    /// Whether plain texts longer than that are cut into several examples instead.
    pub split_text: bool,
    /// Whether only the last of the assistant's turns in a conversation carries loss, instead of all.
    pub last_turn_only: bool,
}

/// How many rows without a token to learn are named.
const PLACES: usize = 3;

/// What became of the rows. It prints as a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows that were read.
    pub rows: usize,
    /// Examples that came of them.
    pub examples: usize,
    /// Rows that were cut at `max_length`.
    pub truncated: usize,
    /// Rows left out because no token with loss was left.
    pub without_loss: usize,
    /// Where the first of those are, as `rows.jsonl:3`.
    pub first_without_loss: Vec<String>,
    /// Rows left out because their answers are the same.
    pub alike: usize,
    /// Conversations that became an example for each of the assistant's turns, because the template writes a
    /// turn otherwise once another follows it.
    pub by_turn: usize,
    /// Tokens of all examples.
    pub tokens: usize,
    /// Those of them that are learnt to be predicted.
    pub trained_tokens: usize,
}

impl Example {
    /// An example of which the tokens from `start` on carry loss.
    pub(super) fn learnt_from(start: usize, ids: Vec<u32>) -> Example {
        let mut labels = ids.clone();
        labels[..start.min(ids.len())].fill(IGNORE);
        Example { ids, labels }
    }

    /// The same behind tokens that carry no loss.
    fn behind(self, opening: &[u32]) -> Example {
        let silent = vec![IGNORE; opening.len()];
        Example { ids: [opening, &self.ids].concat(), labels: [silent, self.labels].concat() }
    }

    /// The same without virtual tokens, which stand above the vocabulary.
    pub fn without_virtual_tokens(&self, vocabulary: usize) -> Example {
        let (ids, labels) = self
            .ids
            .iter()
            .zip(&self.labels)
            .filter(|(id, _)| (**id as usize) < vocabulary)
            .map(|(id, label)| (*id, *label))
            .unzip();
        Example { ids, labels }
    }

    /// Tokens that are learnt to be predicted: the first never is, since nothing comes before it.
    pub fn trained_tokens(&self) -> usize {
        let labels = self.labels.iter().skip(1);
        labels.filter(|&&label| label != IGNORE).count()
    }

    /// Whether any of these tokens is learnt to be predicted.
    pub fn learns(&self, tokens: &[u32]) -> bool {
        self.labels.iter().skip(1).any(|label| tokens.contains(label))
    }
}

impl Report {
    /// Says that a row was left out for want of a token to learn.
    pub fn leave_out(&mut self, dataset: &Dataset, row: &Row) {
        self.without_loss += 1;
        if self.first_without_loss.len() < PLACES {
            self.first_without_loss.push(dataset.place(row));
        }
    }

    /// Counts what came of the rows.
    pub fn count<'a>(&mut self, examples: impl IntoIterator<Item = &'a Example>) {
        for example in examples {
            self.examples += 1;
            self.tokens += example.ids.len();
            self.trained_tokens += example.trained_tokens();
        }
    }
}

impl Encoder<'_> {
    /// Encodes rows of `dataset`, some of which must have a token to learn.
    ///
    /// # Errors
    /// As [`examples`](Encoder::examples); [`Error::Data`] if no row is left with a token to learn.
    pub fn encode(&self, dataset: &Dataset, rows: &[Row]) -> Result<(Vec<Example>, Report)> {
        let (examples, report) = self.examples(dataset, rows)?;
        if examples.is_empty() && !rows.is_empty() {
            let message = format!("nothing to learn: {report}; expected rows with a completion within the length");
            return Err(Error::Data { message });
        }
        Ok((examples, report))
    }

    /// The examples of rows of `dataset` that have a token to learn.
    ///
    /// Loss falls on a completion, on what the assistant says in a conversation, on a whole text, or where
    /// `labels` says. The end of a prompt is where its tokens and those of prompt and completion part.
    /// A text or completion that does not end in an end-of-text token is given one.
    ///
    /// # Errors
    /// [`Error::Row`] for a row the tokenizer or the template refuses, whose answers the template does not tell from what
    /// comes before them, or with an id past the vocabulary.
    pub fn examples(&self, dataset: &Dataset, rows: &[Row]) -> Result<(Vec<Example>, Report)> {
        let mut report = Report { rows: rows.len(), ..Report::default() };
        let mut examples = Vec::new();
        for row in rows {
            let of_row = self.row(dataset, row, &mut report)?;
            let learnt = examples.len();
            examples.extend(of_row.into_iter().filter(|example| example.trained_tokens() > 0));
            if examples.len() == learnt {
                report.leave_out(dataset, row);
            }
        }
        report.count(&examples);
        Ok((examples, report))
    }

    /// What becomes of a row of `dataset`, with tokens to learn or without. What happened to it is counted in `report`.
    ///
    /// # Errors
    /// As [`examples`](Encoder::examples).
    pub fn row(&self, dataset: &Dataset, row: &Row, report: &mut Report) -> Result<Vec<Example>> {
        let taken = self.prefix + self.opening.len();
        if self.max_length < taken + 2 {
            let (length, least) = (self.max_length, taken + 2);
            let why = if taken > 0 { format!(", since {taken} are taken before a text") } else { String::new() };
            return Err(Error::Data { message: format!("a length of at most {length}; expected at least {least}{why}") });
        }
        let encoded = self.content(&row.content, report).map_err(|error| match error {
            // Where the data is matters more than where the template or the tokenizer is.
            Error::ChatTemplate { message, .. } | Error::Tokenizer { message, .. } | Error::Data { message } => {
                dataset.error_at(row, message)
            }
            other => other,
        })?;
        // A template's virtual tokens are among the example's own.
        let opening = if matches!(row.content, Content::Filled { .. }) { &[] } else { self.opening };
        let room = self.max_length - self.prefix - opening.len();
        let fitted = encoded.into_iter().flat_map(|example| self.fit(example, room, &row.content, report));
        Ok(fitted.map(|example| example.behind(opening)).collect())
    }

    /// The examples of a row's answers: of those that are ranked in their order, of any other row its own.
    ///
    /// # Errors
    /// As [`examples`](Encoder::examples).
    pub fn answers(&self, dataset: &Dataset, row: &Row, report: &mut Report) -> Result<Vec<Example>> {
        let contents = match &row.content {
            Content::Ranked { answers, .. } => answers.as_slice(),
            Content::Labelled { answer, .. } => std::slice::from_ref(&**answer),
            own => std::slice::from_ref(own),
        };
        let mut examples = Vec::new();
        for content in contents {
            let row = Row { file: row.file, line: row.line, content: content.clone() };
            examples.extend(self.row(dataset, &row, report)?);
        }
        Ok(examples)
    }

    fn content(&self, content: &Content, report: &mut Report) -> Result<Vec<Example>> {
        let example = match content {
            Content::Ids { ids, labels } => self.given(ids, labels),
            Content::Text(text) => self.completion("", text, true),
            Content::Completion { prompt, completion } => self.completion(prompt, completion, true),
            Content::Filled { prompt, completion } => self.filled(prompt, completion),
            Content::Exchange { messages, learnt_from, tools } => {
                self.answer(&spelled_out(self.template, messages), *learnt_from, tools.as_ref())
            }
            Content::Conversation { messages, tools } => {
                return self.conversation(&spelled_out(self.template, messages), tools.as_ref(), report);
            }
            Content::Ranked { .. } | Content::Labelled { .. } => {
                let message = "answers that were judged; expected one text to learn".into();
                return Err(Error::Data { message });
            }
        };
        Ok(vec![example?])
    }

    pub(super) fn tokenizer(&self) -> Result<&Tokenizer> {
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

    /// What is behind the last virtual token is encoded with the completion.
    fn filled(&self, prompt: &[Piece], completion: &str) -> Result<Example> {
        let (before, last) = match prompt.split_last() {
            Some((Piece::Text(last), before)) => (before, last.as_str()),
            _ => (prompt, ""),
        };
        let is_first = !before.iter().any(|piece| matches!(piece, Piece::Text(_)));
        let example = self.completion(last, completion, is_first)?;
        Ok(example.behind(&template::ids(before, self.tokenizer()?, self.vocab_size)?))
    }

    /// Opened as the tokenizer opens texts, or not.
    fn completion(&self, prompt: &str, completion: &str, is_opened: bool) -> Result<Example> {
        let tokenizer = self.tokenizer()?;
        let mut ids = tokenizer.encode(&format!("{prompt}{completion}"), is_opened)?;
        let start = if prompt.is_empty() { 0 } else { common_prefix(&ids, &tokenizer.encode(prompt, is_opened)?) };
        let ended = ids.last().is_some_and(|last| tokenizer.eos_ids().contains(last));
        if !ended {
            ids.extend(tokenizer.eos_id());
        }
        Ok(Example::learnt_from(start, ids))
    }

    /// Cuts an example to so many tokens, or into several.
    fn fit(&self, mut example: Example, room: usize, content: &Content, report: &mut Report) -> Vec<Example> {
        if example.ids.len() > room && self.split_text && matches!(content, Content::Text(_)) {
            // Windows share a token: the last of one is the first of the next, whose label is never used.
            let starts = (0..example.ids.len() - 1).step_by(room - 1);
            let window = |start: usize| {
                let end = (start + room).min(example.ids.len());
                Example { ids: example.ids[start..end].to_vec(), labels: example.labels[start..end].to_vec() }
            };
            return starts.map(window).collect();
        }
        if example.ids.len() > room {
            report.truncated += 1;
            example.ids.truncate(room);
            example.labels.truncate(room);
        }
        vec![example]
    }
}

/// How many tokens two sequences begin with alike.
pub(super) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, examples] = [counted(self.rows, "row"), counted(self.examples, "example")];
        write!(f, "{rows}, {examples} of {}, {} of them trained", counted(self.tokens, "token"), self.trained_tokens)?;
        let more = if self.without_loss > self.first_without_loss.len() { ", …" } else { "" };
        let places = format!("left out for want of a token to learn ({}{more})", self.first_without_loss.join(", "));
        for (count, what) in [
            (self.truncated, "cut at the length"),
            (self.without_loss, &places),
            (self.alike, "left out since their answers are the same"),
            (self.by_turn, "made an example a turn, since the template writes a turn otherwise once another follows"),
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
pub(super) mod tests;
