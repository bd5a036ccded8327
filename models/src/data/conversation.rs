//! Conversations made into token ids, and which of them the assistant says.
//!
//! A template may mark that itself, by `{% generation %}` blocks. Of any other, an answer is what the text of the messages up to it
//! adds to the prompt that generation would go on from: the text of the messages before it, and the assistant's turn opened. That
//! holds where a text of more messages begins with the text of fewer. Where it does not (a template that drops earlier thinking, or
//! writes the system's message before the last turn), every answer becomes an example of its own, which ends with it: then the
//! model learns each from just what it will be given.

use serde_json::Value;

use super::IGNORE;
use super::encode::{Encoder, Example, Report, common_prefix};
use crate::error::{Error, Result};
use crate::formats::chat_template::{ChatTemplate, Rendered};
use crate::formats::tokenizer::Tokenizer;

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
    tokens(tokenizer, template, &rendered.text)
}

/// The ids of what the template wrote.
fn tokens(tokenizer: &Tokenizer, template: &ChatTemplate, text: &str) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode(text, false)?;
    ids.splice(0..0, opening(tokenizer, template)?);
    Ok(ids)
}

fn opening(tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Option<u32>> {
    let opens = template.is_default() && tokenizer.opens_with_bos()?;
    Ok(tokenizer.bos_id().filter(|_| opens))
}

/// A conversation with nothing in it that the template would drop: calls of tools as plain JSON in `content`, and a list of
/// parts as one text, where the template's source names neither. Done twice, it is as done once.
pub(super) fn spelled_out(template: &ChatTemplate, messages: &[Value]) -> Vec<Value> {
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

impl Encoder<'_> {
    /// Loss on every turn of the assistant, or on its last: in one example, or in one a turn.
    pub(super) fn conversation(&self, messages: &[Value], tools: Option<&Value>, report: &mut Report) -> Result<Vec<Example>> {
        let turns: Vec<usize> = (0..messages.len()).filter(|&turn| messages[turn]["role"] == "assistant").collect();
        let alone = |turn: &usize| self.answer(&messages[..=*turn], *turn, tools);
        if let Some(last) = turns.last().filter(|_| self.last_turn_only) {
            return Ok(vec![alone(last)?]);
        }
        let rendered = self.template.render(messages, tools, false)?;
        if !rendered.generated.is_empty() {
            return Ok(vec![self.marked(&rendered)?]);
        }
        if let Some(example) = self.turns(messages, &turns, tools, &rendered.text)? {
            return Ok(vec![example]);
        }
        report.by_turn += 1;
        turns.iter().map(alone).collect()
    }

    /// Loss on the messages from `learnt_from` on.
    pub(super) fn answer(&self, messages: &[Value], learnt_from: usize, tools: Option<&Value>) -> Result<Example> {
        let text = self.text(messages, tools, false)?;
        let ids = self.tokens(&text)?;
        match self.start(&text, &ids, &messages[..learnt_from], tools)? {
            Some(start) => Ok(Example::learnt_from(start, ids)),
            None => Err(Error::Data {
                message: format!(
                    "the chat template does not write message {} behind what it writes of those before it, so where it begins \
                     cannot be told; expected a template that does, or one that marks answers by {{% generation %}}",
                    learnt_from + 1
                ),
            }),
        }
    }

    /// Loss on the tokens that begin within what the template marks.
    fn marked(&self, rendered: &Rendered) -> Result<Example> {
        let tokenizer = self.tokenizer()?;
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
        self.ended(example)
    }

    /// Loss on these turns of the conversation that `text` is; `None` if that does not begin with the texts of its beginnings.
    fn turns(&self, messages: &[Value], turns: &[usize], tools: Option<&Value>, text: &str) -> Result<Option<Example>> {
        let ids = self.tokens(text)?;
        let mut labels = vec![IGNORE; ids.len()];
        for &turn in turns {
            // A template may refuse half a conversation.
            let through = self.text(&messages[..=turn], tools, false).ok().filter(|through| text.starts_with(through));
            let start = self.start(text, &ids, &messages[..turn], tools)?;
            let (Some(through), Some(start)) = (through, start) else { return Ok(None) };
            let end = common_prefix(&ids, &self.tokens(&through)?).max(start);
            labels[start..end].copy_from_slice(&ids[start..end]);
        }
        self.ended(Example { ids, labels }).map(Some)
    }

    /// Where among the ids of `text` what follows the messages `before` begins: where they part from those of the prompt, which
    /// may open the turn otherwise than the template writes it afterwards. `None` where `text` does not begin with that of `before`.
    fn start(&self, text: &str, ids: &[u32], before: &[Value], tools: Option<&Value>) -> Result<Option<usize>> {
        let Ok(prompt) = self.text(before, tools, true) else { return Ok(None) };
        let prompt_ids = self.tokens(&prompt)?;
        if before.is_empty() {
            // The template may write a system's message of its own before the first.
            let length = prompt_ids.len();
            let place = if length > 0 { ids.windows(length).position(|window| window == prompt_ids) } else { None };
            return Ok(place.map(|place| place + length));
        }
        let begins = |before: &str| text.starts_with(before);
        let goes_on = begins(&prompt) || self.text(before, tools, false).is_ok_and(|before| begins(&before));
        Ok(goes_on.then(|| common_prefix(ids, &prompt_ids)))
    }

    /// With loss also on a token that ends a text right behind what is learnt: else no answer would learn to stop.
    fn ended(&self, mut example: Example) -> Result<Example> {
        let ends = self.tokenizer()?.eos_ids();
        for place in 1..example.ids.len() {
            if example.labels[place - 1] != IGNORE && ends.contains(&example.ids[place]) {
                example.labels[place] = example.ids[place];
            }
        }
        Ok(example)
    }

    fn text(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<String> {
        Ok(self.template.render(messages, tools, add_generation_prompt)?.text)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        tokens(self.tokenizer()?, self.template, text)
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
