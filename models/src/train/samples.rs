//! What a model says as it learns: at every evaluation, greedy continuations of the same prompts, and what a recipe asks it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::formats::tokenizer::Tokenizer;
use crate::generate::{Generated, Request, Sampling, check_prompt, generate};
use crate::model::ends;
use crate::peft::Tuned;

/// Tokens of a continuation, unless it ends before, or the model has no room for them.
const TOKENS: usize = 32;

/// Prompts that are continued together.
const TOGETHER: usize = 8;

/// One line of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Updates that the model had seen.
    pub step: usize,
    /// What it was given: a text, or a list of messages.
    pub prompt: Value,
    /// How it went on.
    pub text: String,
    /// What that is worth, where somebody judges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
}

/// What is asked at every evaluation.
pub struct Samples<'a> {
    tokenizer: &'a Tokenizer,
    prompts: Vec<Prompt>,
}

struct Prompt {
    text: String,
    ids: Vec<u32>,
    new_tokens: usize,
}

impl<'a> Samples<'a> {
    /// These prompts, for this model.
    ///
    /// # Errors
    /// A tokenizer of another vocabulary; a prompt that it cannot spell, that is empty, or that leaves the model no room.
    pub fn new(tokenizer: &'a Tokenizer, prompts: &[String], model: &Tuned) -> Result<Samples<'a>> {
        let config = model.decoder.blueprint();
        tokenizer.check_vocabulary(config.vocab_size)?;
        let prompt = |text: &String| {
            let ids = model.prompt(tokenizer, text)?;
            check_prompt(model, &ids)?;
            let length = model.positions(&ids);
            config.check_length("a sample's prompt with a new token", length + 1)?;
            let new_tokens = config.longest_text().map_or(TOKENS, |longest| TOKENS.min(longest - length));
            Ok(Prompt { text: text.clone(), ids, new_tokens })
        };
        Ok(Samples { tokenizer, prompts: prompts.iter().map(prompt).collect::<Result<_>>()? })
    }

    /// What the model says after so many updates.
    ///
    /// # Errors
    /// What [`generate`] meets.
    pub(super) fn of(&self, model: &Tuned, step: usize) -> Result<Vec<Sample>> {
        let model = model.detach();
        let ends = ends(model.decoder.blueprint(), Some(self.tokenizer));
        let mut requests = self.prompts.iter().map(|Prompt { ids, new_tokens, .. }| Request {
            model: 0,
            prompt: ids.clone(),
            max_new_tokens: *new_tokens,
            ends: ends.clone(),
            sampling: Sampling::default(),
        });
        let generated = generate(&[model], TOGETHER, &mut requests, &mut ())?;
        let sample = |(Prompt { text, ids, .. }, generated): (&Prompt, &Generated)| {
            // The prompt is decoded with it, so that the text begins as it does within a text.
            let before = self.tokenizer.decode(ids, true)?;
            let mut all = self.tokenizer.decode(&[ids.as_slice(), &generated.ids].concat(), true)?;
            let text_behind = all.split_off(all.floor_char_boundary(before.len()));
            Ok(Sample { step, prompt: text.as_str().into(), text: text_behind, reward: None })
        };
        self.prompts.iter().zip(&generated).map(sample).collect()
    }
}
