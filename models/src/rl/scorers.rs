//! What says how good an answer is: rules, and reward models.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use fancy_regex::Regex;
use serde_json::{Value, json};

use super::rollout::{Said, Scorer};
use super::score::scores;
use crate::data::conversation::conversation_ids;
use crate::data::prompts::Prompt;
use crate::error::{Error, Result};
use crate::formats::chat_template::ChatTemplate;
use crate::formats::tokenizer::Tokenizer;
use crate::peft::Tuned;

/// A rule that answers are held against.
#[derive(Debug, Clone)]
pub enum Rule {
    /// 1 where the expression is found in the answer, else 0.
    Regex(Box<Regex>),
    /// How many tokens an answer has; or, of a length that is wanted, how far it is from that, in its own, below 0.
    Length(Option<usize>),
    /// 1 where the answer is JSON, else 0.
    Json,
    /// 1 where the answer is what its row's completion is, but for blanks around, else 0.
    Exact,
    /// 1 where the last number in the answer is the last of its row's completion, else 0.
    Number,
}

impl Rule {
    /// Those that there are, for a reader.
    pub const KNOWN: &str = "regex=EXPRESSION, length, length=TOKENS, json, exact, number";

    /// The rule of this name, with what stands behind `=`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> std::result::Result<Rule, String> {
        let expected = || format!("expected one of {}", Rule::KNOWN);
        match text.split_once('=') {
            None => match text {
                "length" => Ok(Rule::Length(None)),
                "json" => Ok(Rule::Json),
                "exact" => Ok(Rule::Exact),
                "number" => Ok(Rule::Number),
                _ => Err(expected()),
            },
            Some(("regex", expression)) => Regex::new(expression)
                .map(|regex| Rule::Regex(Box::new(regex)))
                .map_err(|error| format!("{error}: expected a regular expression")),
            Some(("length", tokens)) => match tokens.parse() {
                Ok(wanted) if wanted > 0 => Ok(Rule::Length(Some(wanted))),
                _ => Err("expected a number of tokens above 0 behind length=".into()),
            },
            Some(_) => Err(expected()),
        }
    }

    /// The rule, as [`parse`](Self::parse) takes it, that is 1 where none of these words is in the answer, in any case, else 0.
    pub fn without(words: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(|word| fancy_regex::escape(word)).collect();
        format!(r"regex=(?is)^(?!.*(?<!\w)(?:{})(?!\w))", words.join("|"))
    }

    /// Checks that a prompt has what its answers are held against.
    ///
    /// # Errors
    /// A sentence that says what is not there.
    pub fn check(&self, prompt: &Prompt) -> std::result::Result<(), String> {
        match (self, &prompt.expected) {
            (Rule::Exact | Rule::Number, None) => {
                Err(format!("compares with a completion, and a row has none: {}", prompt.given))
            }
            (Rule::Number, Some(expected)) if last_number(expected).is_none() => {
                Err(format!("compares with the last number of a completion, and there is none in {expected:?}"))
            }
            _ => Ok(()),
        }
    }

    fn of(&self, said: &Said) -> Result<f64> {
        let one = |is_so: bool| f64::from(u8::from(is_so));
        self.check(said.prompt).map_err(|message| Error::Data { message: format!("a rule {message}") })?;
        let expected = said.prompt.expected.as_deref().unwrap_or_default();
        Ok(match self {
            // One that backtracks for too long is not found.
            Rule::Regex(regex) => one(regex.is_match(said.text).unwrap_or(false)),
            Rule::Length(None) => said.ids.len() as f64,
            Rule::Length(Some(wanted)) => -(said.ids.len().abs_diff(*wanted) as f64) / *wanted as f64,
            Rule::Json => one(serde_json::from_str::<Value>(said.text).is_ok()),
            Rule::Exact => one(said.text.trim() == expected.trim()),
            Rule::Number => one(last_number(said.text).is_some_and(|found| Some(found) == last_number(expected))),
        })
    }
}

/// The last number of a text, its thousands parted by commas or not. A hyphen behind a letter or a digit is no sign.
fn last_number(text: &str) -> Option<f64> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:(?<!\w)-)?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)").expect("it is an expression")
    });
    let found = NUMBER.find_iter(text).filter_map(|found| found.ok()).last()?;
    found.as_str().replace(',', "").parse().ok().filter(|number: &f64| number.is_finite())
}

impl Scorer for Rule {
    fn name(&self) -> &'static str {
        match self {
            Rule::Regex(_) => "rewards/regex",
            Rule::Length(_) => "rewards/length",
            Rule::Json => "rewards/json",
            Rule::Exact => "rewards/exact",
            Rule::Number => "rewards/number",
        }
    }

    fn score(&mut self, said: &[Said]) -> Result<Vec<f64>> {
        said.iter().map(|said| self.of(said)).collect()
    }
}

/// A reward model.
pub struct RewardModel {
    /// It.
    pub model: Tuned,
    /// What makes its tokens of texts.
    pub tokenizer: Tokenizer,
    /// What makes its texts of conversations.
    pub template: ChatTemplate,
    /// Whether its tokens are the policy's.
    pub is_same: bool,
    /// Texts that are scored together.
    pub batch_size: usize,
    /// Whether a score is a probability: the sigmoid of the model's.
    pub is_probability: bool,
}

impl RewardModel {
    /// An answer as it is scored: ended as the rows are that it learnt from, where it has ended.
    fn text(&self, said: &Said) -> Result<Vec<u32>> {
        let Self { model, tokenizer, template, is_same, .. } = self;
        let vocabulary = model.decoder.blueprint().vocab_size;
        let ids = match &said.prompt.given {
            Value::Array(messages) if said.has_ended && !is_ids(messages) => {
                let answer = json!({"role": "assistant", "content": said.text});
                let messages: Vec<Value> = messages.iter().cloned().chain([answer]).collect();
                conversation_ids(tokenizer, template, &messages, None, false)?
            }
            _ if *is_same => {
                let words = said.prompt.ids.iter().copied().filter(|id| (*id as usize) < vocabulary);
                words.chain(said.ids.iter().copied()).collect()
            }
            Value::Array(messages) if is_ids(messages) => {
                let message =
                    "a prompt of token ids, and a reward model with other tokens; expected prompts that are texts or messages";
                return Err(Error::Data { message: message.into() });
            }
            Value::Array(messages) => {
                let mut ids = conversation_ids(tokenizer, template, messages, None, true)?;
                ids.extend(tokenizer.encode(said.text, false)?);
                ids
            }
            given => {
                let mut ids = tokenizer.encode(&format!("{}{}", given.as_str().unwrap_or_default(), said.text), true)?;
                let end = tokenizer.eos_id().filter(|end| said.has_ended && ids.last() != Some(end));
                ids.extend(end);
                ids
            }
        };
        Ok(model.opened(&ids))
    }
}

/// Whether a prompt was given as the ids of its tokens.
fn is_ids(prompt: &[Value]) -> bool {
    prompt.iter().all(Value::is_number)
}

impl Scorer for RewardModel {
    fn name(&self) -> &'static str {
        "rewards/model"
    }

    fn score(&mut self, said: &[Said]) -> Result<Vec<f64>> {
        let texts = said.iter().map(|said| self.text(said)).collect::<Result<Vec<_>>>()?;
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let found = scores(&self.model, &texts, self.batch_size, &mut |_, _| ControlFlow::Continue(()))?;
        let score = |score: f32| match self.is_probability {
            true => 1.0 / (1.0 + (-f64::from(score)).exp()),
            false => f64::from(score),
        };
        Ok(found.into_iter().map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_what_answers_are_worth() {
        let prompt = Prompt { ids: vec![1], given: json!("2 and 2 is"), expected: Some(" 4.\n".into()) };
        let of = |rule: &str, text: &str| {
            let said = Said { prompt: &prompt, text, ids: &[1, 2, 3], has_ended: true };
            Rule::parse(rule).unwrap().score(&[said]).unwrap()[0]
        };
        assert_eq!([of("regex=^ ?4", "4 it is"), of("regex=^ ?4", "it is 4")], [1.0, 0.0]);
        assert_eq!([of("length", ""), of("length=6", ""), of("length=2", "")], [3.0, -0.5, -0.5]);
        assert_eq!([of("json", "{\"a\": 1}"), of("json", "{a}")], [1.0, 0.0]);
        assert_eq!([of("exact", "4. "), of("exact", "4")], [1.0, 0.0]);
        assert_eq!([of("number", "1 + 3 = 4.0"), of("number", "4, or 5"), of("number", "four")], [1.0, 0.0, 0.0]);
        for (text, expected) in [
            ("It cost $1,234.50.", 1234.5),
            ("4, or 5-6", 6.0),
            ("-3 and 5-", 5.0),
            ("2 to -3", -3.0),
            ("4,5", 5.0),
            ("about .5", 0.5),
        ] {
            assert_eq!(last_number(text), Some(expected), "{text}");
        }
        assert_eq!(
            ["Bad!", "a BAD. (un)kind", "badly", "unkind"].map(|text| of(&Rule::without(&["bad", "(un)"]), text)),
            [0.0, 0.0, 1.0, 1.0]
        );
        let without = Prompt { expected: None, ..prompt.clone() };
        assert!(Rule::Exact.score(&[Said { prompt: &without, text: "", ids: &[], has_ended: true }]).is_err());
        for text in ["", "regex=(", "length=0", "length=x", "other", "json=1"] {
            assert!(Rule::parse(text).is_err(), "{text}");
        }
    }
}
