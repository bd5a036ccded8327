//! Which of two answers is better, by a judge who reads both: a language model with a rubric, after Zheng et al. 2023
//! (arXiv:2306.05685). A judge favours a place, so that each pair is shown in both orders and the mean counts. And what a judge makes of
//! one answer by a principle: a critique and a better answer, after Bai et al. 2022 (arXiv:2212.08073).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::data::IGNORE;
use crate::data::encode::Example;
use crate::error::{Error, Result};
use crate::formats::chat_template::ChatTemplate;
use crate::formats::tokenizer::Tokenizer;
use crate::generate::{Generated, Listener, Request, Sampling, generate};
use crate::peft::Tuned;
use crate::train::answers::log_probs;

/// What makes an answer better, where nobody says.
pub const RUBRIC: &str = "The better answer does what is asked, is true, is clear and to the point, and harms nobody. Neither its place \
nor its length makes an answer better.";

/// Hears what was found of the question of this number.
pub type Heard<'a, T> = dyn FnMut(usize, T) -> Result<()> + 'a;

/// Who judges.
pub trait Judge {
    /// Whether it can be asked this and reply with so many tokens.
    fn has_room(&self, question: &str, tokens: usize) -> Result<bool>;

    /// How likely the answer called A is better than the one called B, of each question that [`compared`] makes; in any order. Where it
    /// does not say, nothing is heard.
    ///
    /// # Errors
    /// What `heard` says; a judge that cannot be asked, or a device that failed.
    fn compare(&mut self, questions: &[(usize, String)], heard: &mut Heard<f64>) -> Result<()>;

    /// What it replies to each question; in any order. Where it does not, nothing is heard.
    ///
    /// # Errors
    /// As [`compare`](Judge::compare).
    fn reply(&mut self, questions: &[(usize, String)], heard: &mut Heard<Reply>) -> Result<()>;
}

/// What was said in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// As it came, thoughts included.
    pub text: String,
    /// Whether it was cut at its length.
    pub is_cut: bool,
}

/// The question which of two answers is better.
pub fn compared(rubric: &str, prompt: &Value, [one, other]: [&str; 2]) -> String {
    format!(
        "Two answers to the same prompt are to be compared.\n\n{}\n\n[Prompt]\n{}\n\n[Answer A]\n{}\n\n[Answer B]\n{}\n\n\
         Which answer is better, A or B? Reply with the letter alone.",
        rubric.trim(),
        spoken(prompt),
        one.trim(),
        other.trim()
    )
}

/// The question what is wrong with an answer.
pub fn criticised(principle: &str, prompt: &Value, answer: &str) -> String {
    format!(
        "An answer is to be judged by this principle: {principle}\n\n[Prompt]\n{}\n\n[Answer]\n{}\n\nIn a few sentences, say in what the \
         answer does not keep to the principle.",
        spoken(prompt),
        answer.trim()
    )
}

/// The question for a better answer.
pub fn revised(principle: &str, prompt: &Value, answer: &str, critique: &str) -> String {
    format!(
        "An answer is to be written anew, so that it keeps to this principle: {principle}\n\n[Prompt]\n{}\n\n[Answer]\n{}\n\n[Critique]\n\
         {}\n\nReply with the better answer to the prompt alone.",
        spoken(prompt),
        answer.trim(),
        critique.trim()
    )
}

/// A prompt as it is read: a text, or messages each with who said it.
pub fn spoken(prompt: &Value) -> String {
    let turn = |message: &Value| {
        let of = |key: &str| message[key].as_str().unwrap_or_default();
        format!("{}: {}", of("role"), of("content"))
    };
    match prompt {
        Value::Array(messages) => messages.iter().map(turn).collect::<Vec<_>>().join("\n"),
        Value::String(text) => text.trim().into(),
        other => other.to_string(),
    }
}

/// What a reply says, without what was thought before it; `None` where that is nothing.
pub fn said(reply: &str) -> Option<&str> {
    let said = reply.rsplit_once("</think>").map_or(reply, |(_, said)| said).trim();
    (!said.is_empty() && !said.contains("<think>")).then_some(said)
}

/// How likely A is better, by a reply in words: 1, 0, or 1/2 for a tie; `None` where it does not say so plainly, since a sentence may
/// name the worse one last.
pub fn verdict(reply: &str) -> Option<f64> {
    let said = said(reply)?;
    let of = |word: &str| match word.trim_matches(|letter: char| !letter.is_alphanumeric()) {
        "A" => Some(1.0),
        "B" => Some(0.0),
        word if word.eq_ignore_ascii_case("tie") => Some(0.5),
        _ => None,
    };
    let alone = |line: &str| {
        let line = line.trim().trim_matches('*').trim_start();
        let rest = line.strip_prefix("Answer").or(line.strip_prefix("answer")).unwrap_or(line);
        of(rest.trim_start_matches([':', ' ', '*']))
    };
    let in_brackets = said.rsplit_once("[[").and_then(|(_, rest)| rest.split_once("]]")).and_then(|(word, _)| of(word));
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let (first, last) = (lines.next(), lines.next_back());
    in_brackets.or_else(|| last.and_then(alone)).or_else(|| first.and_then(alone))
}

/// What a pair of answers comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preference {
    /// How likely the first is the better one, as the mean over both orders.
    pub first: f64,
    /// Whether another was better in the other order.
    pub is_swayed: bool,
}

/// By how likely A was better where the first answer stood there, and where the second did.
pub fn preference(first_as_a: f64, second_as_a: f64) -> Preference {
    let swapped = 1.0 - second_as_a;
    Preference { first: (first_as_a + swapped) / 2.0, is_swayed: (first_as_a - 0.5) * (swapped - 0.5) < 0.0 }
}

/// How likely each of so many answers wins against another, as the mean over those that it was compared with: by the two answers of each
/// pair and how likely the first of them is the better one. Of one that was compared with none it is even.
pub fn worths(answers: usize, pairs: &[(usize, usize, f64)]) -> Vec<f64> {
    let mut found = vec![(0.0, 0); answers];
    for &(one, other, first) in pairs {
        for (answer, wins) in [(one, first), (other, 1.0 - first)] {
            let (sum, count) = found[answer];
            found[answer] = (sum + wins, count + 1);
        }
    }
    found.into_iter().map(|(sum, count)| if count > 0 { sum / f64::from(count) } else { 0.5 }).collect()
}

/// A language model as judge.
pub struct JudgeModel {
    /// It.
    pub model: Tuned,
    /// What makes its tokens.
    pub tokenizer: Tokenizer,
    /// What makes a text of a question, where it has learnt to converse.
    pub template: Option<ChatTemplate>,
    /// Tokens of its longest reply.
    pub max_new_tokens: usize,
    /// Questions that are asked together.
    pub batch_size: usize,
}

impl JudgeModel {
    /// A question's tokens, with what the reply begins with. They are made of the whole text, in which a letter may be another token than
    /// alone.
    fn ids(&self, question: &str, reply: &str) -> Result<Vec<u32>> {
        match &self.template {
            Some(template) => {
                let rendered = template.render(&[json!({"role": "user", "content": question})], None, true)?;
                self.tokenizer.encode(&format!("{}{}", rendered.text, reply.trim_start()), false)
            }
            None => self.tokenizer.encode(&format!("{question}\n\n{reply}"), true),
        }
    }

    /// The question with either letter as its answer: what they do not share carries loss.
    fn examples(&self, question: &str) -> Result<[Example; 2]> {
        let opening = if self.template.is_some() { "" } else { "The better answer is" };
        let of = |letter: &str| self.ids(question, &format!("{opening} {letter}"));
        let all = [of("A")?, of("B")?];
        let shared = all[0].iter().zip(&all[1]).take_while(|(one, other)| one == other).count();
        Ok(all.map(|ids| {
            let before = self.model.opened(&ids[..shared]);
            let labels = std::iter::repeat_n(IGNORE, before.len()).chain(ids[shared..].iter().copied()).collect();
            Example { labels, ids: [&before, &ids[shared..]].concat() }
        }))
    }

    fn reply_ids(&self, question: &str) -> Result<Vec<u32>> {
        self.ids(question, if self.template.is_some() { "" } else { "Reply:" })
    }
}

impl Judge for JudgeModel {
    fn has_room(&self, question: &str, tokens: usize) -> Result<bool> {
        let tokens = self.model.positions(&self.ids(question, "The better answer is")?) + tokens;
        Ok(self.model.decoder.blueprint().longest_text().is_none_or(|longest| tokens <= longest))
    }

    fn compare(&mut self, questions: &[(usize, String)], heard: &mut Heard<f64>) -> Result<()> {
        for batch in questions.chunks(self.batch_size.max(1)) {
            let mut examples = Vec::with_capacity(2 * batch.len());
            for (_, question) in batch {
                examples.extend(self.examples(question)?);
            }
            let examples: Vec<&Example> = examples.iter().collect();
            let sums = log_probs(&self.model, &examples, batch.len(), &mut |_, _| std::ops::ControlFlow::Continue(()))?;
            for ((number, _), sums) in batch.iter().zip(sums.chunks(2)) {
                let first = 1.0 / (1.0 + (f64::from(sums[1]) - f64::from(sums[0])).exp());
                if !first.is_finite() {
                    return Err(Error::Data { message: "the judge finds neither answer likely at all".into() });
                }
                heard(*number, first)?;
            }
        }
        Ok(())
    }

    fn reply(&mut self, questions: &[(usize, String)], heard: &mut Heard<Reply>) -> Result<()> {
        let ends = crate::model::ends(self.model.decoder.blueprint(), Some(&self.tokenizer));
        let request = |(_, question): &(usize, String)| {
            Ok(Request {
                model: 0,
                prompt: self.reply_ids(question)?,
                max_new_tokens: self.max_new_tokens,
                ends: ends.clone(),
                sampling: Sampling::default(),
            })
        };
        let requests = questions.iter().map(request).collect::<Result<Vec<_>>>()?;
        let mut replies = Replies { tokenizer: &self.tokenizer, questions, heard };
        generate(&[self.model.detach()], self.batch_size, &mut requests.into_iter(), &mut replies).map(drop)
    }
}

/// Passes on replies as they end.
struct Replies<'a, 'b> {
    tokenizer: &'a Tokenizer,
    questions: &'a [(usize, String)],
    heard: &'a mut Heard<'b, Reply>,
}

impl Listener for Replies<'_, '_> {
    fn end(&mut self, request: usize, generated: &Generated) -> Result<()> {
        let text = self.tokenizer.decode(&generated.ids, true)?;
        (self.heard)(self.questions[request].0, Reply { text, is_cut: generated.end.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_in_words_is_a_verdict() {
        for (reply, expected) in [
            ("A", Some(1.0)),
            ("B.", Some(0.0)),
            ("**B**", Some(0.0)),
            ("Answer: B", Some(0.0)),
            ("**Answer A**", Some(1.0)),
            ("Answer A is better than answer B.\n\n[[A]]", Some(1.0)),
            ("B\n\nAnswer A is vague and wrong.", Some(0.0)),
            ("Both are kind, but one is wrong.\n\nA", Some(1.0)),
            ("<think>A? No.</think>\nB", Some(0.0)),
            ("Tie", Some(0.5)),
            // Of the better and the worse one, either may come last.
            ("Answer B is better than A.", None),
            ("A good question. Answer B is better", None),
            ("Neither. A good answer is brief", None),
            ("<think>Answer A", None),
            ("neither", None),
            ("", None),
            ("a or b", None),
        ] {
            assert_eq!(verdict(reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn what_was_thought_is_not_said() {
        assert_eq!(said("<think>Hm.</think>\n Four. "), Some("Four."));
        assert_eq!(["<think>Hm.</think>\n", "<think>Hm", " "].map(said), [None; 3]);
    }

    #[test]
    fn both_orders_count_alike() {
        assert_eq!(preference(0.75, 0.25), Preference { first: 0.75, is_swayed: false });
        // Whoever always says A says nothing of the answers.
        assert_eq!(preference(0.9, 0.9), Preference { first: 0.5, is_swayed: true });
        assert_eq!(preference(0.25, 1.0), Preference { first: 0.125, is_swayed: false });
        assert_eq!(preference(0.5, 0.5), Preference { first: 0.5, is_swayed: false });
    }

    #[test]
    fn an_answers_worth_is_how_often_it_wins() {
        assert_eq!(worths(3, &[(0, 1, 1.0), (0, 2, 0.5), (1, 2, 0.25)]), [0.75, 0.125, 0.625]);
        assert_eq!(worths(2, &[(0, 1, 0.75)]), [0.75, 0.25]);
        // A pair that nobody judged says nothing of either.
        assert_eq!(worths(4, &[(0, 1, 1.0), (0, 2, 0.0)]), [0.5, 0.0, 1.0, 0.5]);
    }

    #[test]
    fn questions_hold_what_was_asked_and_said() {
        let chat = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]);
        let text = compared("Be kind.", &chat, [" one ", "two"]);
        for part in ["Be kind.\n", "user: Hi\nassistant: Yes?\n", "[Answer A]\none\n", "[Answer B]\ntwo\n"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(
            revised("Be kind.", &json!(" Why? "), "No.", "Rude.")
                .contains("[Prompt]\nWhy?\n\n[Answer]\nNo.\n\n[Critique]\nRude.\n")
        );
    }
}
