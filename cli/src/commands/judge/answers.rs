//! What is judged: answers that rows have, or that a policy gives.

use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use wgtune_engine::random::Philox;
use wgtune_models::data::prompts::{Asked, Prompt, asked};
use wgtune_models::data::rows::{Content, Dataset, Row};
use wgtune_models::model::Model;
use wgtune_models::rl::judge::Reply;
use wgtune_models::rl::rollout::{Rollout, texts};

use super::kept::Kept;
use super::{Arguments, Criteria};
use crate::common::Template;
use crate::data::{Coder, Conversations};
use crate::progress::Progress;
use crate::runs::Failure;
use crate::watch::unless;

/// Prompts whose answers are kept together.
const TOGETHER: usize = 32;

/// A prompt and what was answered.
pub struct Item {
    /// A text, or a list of messages.
    pub prompt: Value,
    pub answers: Vec<String>,
    /// Whether the row came with the answers, the best first.
    pub is_labelled: bool,
}

/// Those of the rows.
pub fn items(dataset: &Dataset) -> wgtune_models::Result<Vec<Item>> {
    let item = |row: &Row| {
        let wrong =
            || dataset.error_at(row, "no prompt that a judge can read; expected prompts, or pairs or ranks of answers".into());
        match &row.content {
            Content::Ranked { answers, .. } => {
                if answers.iter().any(|answer| !is_one_text(answer)) {
                    let message = "an answer of several messages, or with tools; expected one message with a text";
                    return Err(dataset.error_at(row, message.into()));
                }
                let all = answers.iter().map(|answer| asked(answer).ok_or_else(wrong)).collect::<Result<Vec<Asked>, _>>()?;
                let prompt = all[0].prompt.clone();
                Ok(Item { prompt, answers: all.into_iter().map(|asked| asked.answer).collect(), is_labelled: true })
            }
            content => {
                let Asked { prompt, .. } = asked(content).ok_or_else(wrong)?;
                Ok(Item { prompt, answers: Vec::new(), is_labelled: false })
            }
        }
    };
    dataset.rows.iter().map(item).collect()
}

/// Whether an answer is a text behind its prompt and no more.
fn is_one_text(answer: &Content) -> bool {
    match answer {
        Content::Exchange { messages, learnt_from, tools } => {
            tools.is_none() && messages.len() == learnt_from + 1 && messages[*learnt_from]["content"].is_string()
        }
        Content::Conversation { messages, tools } => {
            tools.is_none() && messages.last().is_some_and(|last| last["role"] == "assistant" && last["content"].is_string())
        }
        _ => true,
    }
}

impl Item {
    /// An answer as a row holds it: behind messages it is one.
    pub fn shown(&self, answer: &str) -> Value {
        match &self.prompt {
            Value::Array(_) => json!([{"role": "assistant", "content": answer}]),
            _ => json!(answer),
        }
    }
}

/// What a policy's answers came to.
#[derive(Default)]
pub struct Left {
    /// Prompts that leave no room for an answer.
    pub too_long: usize,
    /// Answers that were cut at the length.
    pub cut: usize,
}

impl Arguments {
    /// The items with answers, by the policy where rows have none.
    pub(super) fn answered(
        &self,
        dataset: &Dataset,
        mut items: Vec<Item>,
        criteria: &Criteria,
        kept: &mut Kept,
        interrupted: &AtomicBool,
    ) -> Result<(Vec<Item>, Left), Failure> {
        let open: Vec<usize> = (0..items.len()).filter(|&at| items[at].answers.is_empty()).collect();
        if open.is_empty() {
            return Ok((items, Left::default()));
        }
        let each = if matches!(criteria, Criteria::Principles(_)) { 1 } else { self.answers };
        let (policy, adapter) = self.policy()?;
        let base = Model::open(policy)?;
        self.force.check(&base, adapter)?;
        let model = base.load_adapted(&self.compute.open()?, adapter)?.detach();
        let longest = base.blueprint().longest_text();
        let conversations =
            Conversations { template: Template { template: self.template.template.clone() }, last_turn_only: false };
        let coder = Coder::open(&base, Some(&model), dataset, &conversations, longest.unwrap_or(usize::MAX))?;
        let (encoder, tokenizer) = (coder.encoder(), base.tokenizer()?);
        let prompts = open.iter().map(|&at| encoder.prompt(dataset, &dataset.rows[at])).collect::<Result<Vec<Prompt>, _>>()?;
        let has_room =
            |prompt: &Prompt| longest.is_none_or(|longest| model.positions(&prompt.ids) + self.drawing.max_new_tokens <= longest);
        let fitting: Vec<(usize, &Prompt)> = open.iter().copied().zip(&prompts).filter(|(_, prompt)| has_room(prompt)).collect();
        let sampler = self.drawing.sampler(base.ends(Some(&tokenizer)));
        let random = Philox::new(self.compute.seed).stream(0x6a756467);
        let mut bar = Progress::new("answering", fitting.len().div_ceil(TOGETHER), 0);
        let mut cut = 0;
        for (number, part) in fitting.chunks(TOGETHER).enumerate() {
            let said: Vec<Reply> = match kept.get("answers", number) {
                Some(said) => said,
                None => {
                    let prompts: Vec<&Prompt> = part.iter().map(|(_, prompt)| *prompt).collect();
                    let random = random.stream(number as u64);
                    let rollouts = sampler.answers(&model, &prompts, each, random, &mut |_, _| unless(interrupted))?;
                    let texts = texts(&tokenizer, base.blueprint().vocab_size, &prompts, &rollouts)?;
                    let reply = |(text, rollout): (String, &Rollout)| Reply { text, is_cut: !rollout.has_ended };
                    let said: Vec<Reply> = texts.into_iter().zip(&rollouts).map(reply).collect();
                    kept.add("answers", number, &said)?;
                    said
                }
            };
            for ((at, _), said) in part.iter().zip(said.chunks(each)) {
                items[*at].answers = said.iter().map(|reply| reply.text.clone()).collect();
                cut += said.iter().filter(|reply| reply.is_cut).count();
            }
            bar.advance("");
        }
        let count = items.len();
        items.retain(|item| !item.answers.is_empty());
        let left = Left { too_long: count - items.len(), cut };
        Ok((items, left))
    }
}
