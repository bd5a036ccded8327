//! Templates of texts: where the fields of a row stand, and where virtual tokens do.
//!
//! `<|virtual:8|> Question: {question} <|virtual:4|>` is a text of one field between twelve virtual tokens, which are numbered in the
//! order in which they stand. `{{` and `}}` are braces of the text. PEFT knows no templates, and puts all virtual tokens before a
//! text: of an adapter whose template begins with all of them, it computes the same.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Result as Outcome;
use crate::formats::json::abbreviated;
use crate::formats::tokenizer::Tokenizer;
use crate::wording::{listed, shortened};

/// Virtual tokens of a template, at most.
const MOST: usize = 65_536;
/// What a run of virtual tokens begins and ends with.
const VIRTUAL: [&str; 2] = ["<|virtual:", "|>"];

/// A text with places for fields and for virtual tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
    Virtual(usize),
}

/// What stands in a text that a template made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Piece {
    /// A text that is tokenised for itself.
    Text(String),
    /// Virtual tokens, by their numbers.
    Virtual(Range<usize>),
}

impl Template {
    /// The template that a text is.
    ///
    /// # Errors
    /// A sentence, for an empty text, braces that do not pair, a field without a name, and virtual tokens whose number is not from
    /// 1 to 65,536.
    pub fn parse(text: &str) -> Result<Template, String> {
        if text.is_empty() {
            return Err("an empty template; expected a text with {FIELDS}".into());
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let (part, length) = if rest.starts_with("{{") || rest.starts_with("}}") {
                (Part::Text(character.into()), 2)
            } else if rest.starts_with(VIRTUAL[0]) {
                virtual_tokens(rest)?
            } else if character == '{' {
                field(rest)?
            } else if character == '}' {
                return Err(format!("`{}`: a brace that closes none; expected `}}}}` for one of the text", shortened(rest, 20)));
            } else {
                (Part::Text(character.into()), character.len_utf8())
            };
            match (parts.last_mut(), part) {
                (Some(Part::Text(before)), Part::Text(more)) => *before += &more,
                (_, part) => parts.push(part),
            }
            rest = &rest[length..];
        }
        let template = Template { text: text.into(), parts };
        match template.virtual_tokens() {
            0..=MOST => Ok(template),
            count => Err(format!("a template of {count} virtual tokens; expected at most {MOST}")),
        }
    }

    /// The text that it was parsed of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many virtual tokens stand in it.
    pub fn virtual_tokens(&self) -> usize {
        let count = |part: &Part| if let Part::Virtual(count) = part { *count } else { 0 };
        self.parts.iter().map(count).sum()
    }

    /// The names of its fields, each once, in the order in which they first stand.
    pub fn fields(&self) -> Vec<String> {
        let mut names = Vec::new();
        for part in &self.parts {
            if let Part::Field(name) = part
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        names
    }

    /// The text that these fields make, texts that stand side by side joined. Other keys are passed over.
    ///
    /// # Errors
    /// A sentence, for a field that is not there, or is neither text nor number.
    pub fn fill(&self, fields: &Map<String, Value>) -> Result<Vec<Piece>, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut count = 0;
        for part in &self.parts {
            let piece = match part {
                Part::Text(text) => Piece::Text(text.clone()),
                Part::Field(name) => Piece::Text(self.value(fields, name)?),
                Part::Virtual(more) => {
                    count += more;
                    Piece::Virtual(count - more..count)
                }
            };
            match (pieces.last_mut(), piece) {
                (_, Piece::Text(text)) if text.is_empty() => {}
                (Some(Piece::Text(before)), Piece::Text(more)) => *before += &more,
                (Some(Piece::Virtual(before)), Piece::Virtual(more)) => before.end = more.end,
                (_, piece) => pieces.push(piece),
            }
        }
        Ok(pieces)
    }

    fn value(&self, fields: &Map<String, Value>, name: &str) -> Result<String, String> {
        match fields.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(other) => Err(format!("`{name}` is {}; expected a text or a number", abbreviated(other))),
            None => {
                let found = if fields.is_empty() { "none".into() } else { listed(fields.keys()) };
                Err(format!("no `{name}`, and the template has the fields {}; found: {found}", listed(&self.fields())))
            }
        }
    }
}

/// The virtual tokens that a text begins with, and the length of what says so.
fn virtual_tokens(text: &str) -> Result<(Part, usize), String> {
    let [opener, closer] = VIRTUAL;
    let expected = format!("expected {opener}N{closer}, where N is from 1 to {MOST}");
    let end = text.find(closer).ok_or_else(|| format!("`{}` is not closed; {expected}", shortened(text, 20)))?;
    let (whole, number) = (&text[..end + closer.len()], &text[opener.len()..end]);
    match number.parse() {
        Ok(count @ 1..=MOST) if number.bytes().all(|byte| byte.is_ascii_digit()) => Ok((Part::Virtual(count), whole.len())),
        _ => Err(format!("`{}`; {expected}", shortened(whole, 40))),
    }
}

/// The field that a text begins with, and the length of what says so.
fn field(text: &str) -> Result<(Part, usize), String> {
    match text[1..].split_once(['{', '}']) {
        Some((name, _)) if text[1 + name.len()..].starts_with('}') => match name {
            "" => Err("`{}`: a field without a name; expected {NAME}, or {{ and }} for braces of the text".into()),
            name => Ok((Part::Field(name.into()), name.len() + 2)),
        },
        _ => {
            Err(format!("`{}`: a brace that is not closed; expected {{NAME}}, or {{{{ for one of the text", shortened(text, 20)))
        }
    }
}

/// The tokens of a text that a template made: the first piece of text is opened as the tokenizer opens texts, and virtual tokens are
/// numbered from `vocabulary` on.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn ids(pieces: &[Piece], tokenizer: &Tokenizer, vocabulary: usize) -> Outcome<Vec<u32>> {
    let mut ids = Vec::new();
    let mut is_first = true;
    for piece in pieces {
        match piece {
            Piece::Text(text) => {
                ids.extend(tokenizer.encode(text, is_first)?);
                is_first = false;
            }
            Piece::Virtual(numbers) => ids.extend(numbers.clone().map(|number| (vocabulary + number) as u32)),
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str, fields: Value) -> Result<Vec<Piece>, String> {
        Template::parse(template).unwrap().fill(fields.as_object().unwrap())
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    #[test]
    fn fields_are_filled_and_virtual_tokens_numbered_in_order() {
        let template = "<|virtual:8|> Question: {question} ({points})<|virtual:4|>";
        let pieces = filled(template, json!({"question": "What is {this}?", "points": 3, "more": null})).unwrap();
        assert_eq!(pieces, [Piece::Virtual(0..8), text(" Question: What is {this}? (3)"), Piece::Virtual(8..12)]);
        let template = Template::parse("<|virtual:2|><|virtual:1|>{a}{b}{a}").unwrap();
        assert_eq!((template.virtual_tokens(), template.fields()), (3, vec!["a".to_string(), "b".to_string()]));
        let pieces = template.fill(json!({"a": "", "b": "<|virtual:5|>"}).as_object().unwrap()).unwrap();
        // What a field says is text, whatever it looks like.
        assert_eq!(pieces, [Piece::Virtual(0..3), text("<|virtual:5|>")]);
    }

    #[test]
    fn braces_and_bars_of_the_text_stay() {
        assert_eq!(filled("{{{a}}} <|im_end|> ü", json!({"a": "x"})).unwrap(), [text("{x} <|im_end|> ü")]);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, expected) in [
            ("", "an empty template"),
            ("a {b", "`{b`: a brace that is not closed"),
            ("a {b {c}", "a brace that is not closed"),
            ("a } b", "`} b`: a brace that closes none"),
            ("{}", "a field without a name"),
            ("<|virtual:0|>", "`<|virtual:0|>`; expected <|virtual:N|>, where N is from 1 to 65536"),
            ("<|virtual:65537|>", "from 1 to 65536"),
            ("<|virtual:+3|>", "`<|virtual:+3|>`"),
            ("<|virtual:|>", "`<|virtual:|>`"),
            ("<|virtual:3", "is not closed"),
            ("<|virtual:65536|><|virtual:1|>", "65537 virtual tokens; expected at most 65536"),
        ] {
            let message = Template::parse(template).unwrap_err();
            assert!(message.contains(expected), "{template}: {message}");
        }
    }

    #[test]
    fn fields_that_are_missing_or_no_text_are_named() {
        assert_eq!(
            filled("{a}{b}", json!({"a": "x", "c": 1})).unwrap_err(),
            "no `b`, and the template has the fields `a`, `b`; found: `a`, `c`"
        );
        assert_eq!(filled("{a}", json!({"a": [1]})).unwrap_err(), "`a` is [1]; expected a text or a number");
    }
}
