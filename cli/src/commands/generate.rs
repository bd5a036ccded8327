//! `wgtune generate`.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use wgtune_models::data::conversation::conversation_ids;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::generate::{FinishReason, Generated, Sampling, generate};
use wgtune_models::model::Model;
use wgtune_models::peft::Tuned;
use wgtune_models::transformer::Blueprint;

use crate::common::{Base, Compute, Outcome, Template, check_length, note, print_json};
use crate::config::Given;
use crate::numbers::{MOST_TOKENS, above_zero, at_least_zero, share, token_id, whole};

/// Continues a prompt, or holds a conversation
#[derive(Args)]
#[command(
    after_help = "Examples:\n  wgtune generate --model DIR --prompt 'Once upon a time' --max-new-tokens 100 --temperature 0\n  \
    wgtune generate --model DIR --adapter DIR --chat"
)]
pub struct Arguments {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    source: Source,
    /// What the system says before a chat begins
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompt", "ids"])]
    system: Option<String>,
    #[command(flatten)]
    template: Template,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Print one JSON document: ids, text, finish_reason, tokens per second
    #[arg(long, conflicts_with = "chat")]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The token ids to continue, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    ids: Option<Vec<u32>>,
    /// Take turns: lines of standard input are answered through the model's chat template
    #[arg(long)]
    chat: bool,
}

#[derive(Args)]
struct SamplingArguments {
    /// At most this many new tokens (in a chat: an answer) [default: 128, or as many as the model has room for]
    #[arg(long, value_parser = whole(1..=MOST_TOKENS), value_name = "TOKENS")]
    max_new_tokens: Option<usize>,
    /// Allow more tokens than the model was made for (its max_position_embeddings, and what its rope scaling makes of them)
    #[arg(long)]
    beyond: bool,
    /// Divides the logits; 0 always takes the most likely token
    #[arg(long, default_value_t = 0.7, value_parser = at_least_zero)]
    temperature: f64,
    /// Draw among the k most likely tokens; 0 is all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draw among the most likely tokens that together have this probability; 1 is all
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    top_p: f64,
    /// Make tokens that were seen less likely; 1 is off
    #[arg(long, default_value_t = 1.0, value_parser = above_zero)]
    repetition_penalty: f64,
    /// Stop where this text appears (can be given again)
    #[arg(long, value_name = "TEXT", value_parser = stop)]
    stop: Vec<String>,
}

fn stop(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a text of at least one character".into()) } else { Ok(text.into()) }
}

/// New tokens where nobody says how many.
const NEW_TOKENS: usize = 128;

impl SamplingArguments {
    /// How many tokens may follow a prompt of so many.
    fn new_tokens(&self, config: &Blueprint, prompt: usize) -> Result<usize, String> {
        match self.max_new_tokens {
            Some(tokens) => {
                check_length(config, "the prompt with --max-new-tokens", prompt + tokens, self.beyond).map(|()| tokens)
            }
            None => {
                // The first new token needs a place of its own.
                check_length(config, "the prompt with a new token", prompt + 1, self.beyond)?;
                let room = config
                    .longest_text()
                    .filter(|_| !self.beyond || !config.may_go_beyond())
                    .map_or(NEW_TOKENS, |longest| longest - prompt);
                Ok(room.min(NEW_TOKENS))
            }
        }
    }
}

#[derive(Serialize)]
struct Report {
    ids: Vec<u32>,
    text: String,
    finish_reason: FinishReason,
    prompt_tokens: usize,
    prefill_tokens_per_second: f64,
    tokens_per_second: f64,
    device: String,
}

struct Session<'a> {
    arguments: &'a Arguments,
    base: Model,
    model: Tuned,
    tokenizer: Option<Tokenizer>,
    ends: Vec<u32>,
}

/// Streams the text as it comes, or prints the report.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let base = arguments.base.open()?;
    let device = arguments.compute.open()?;
    let model = arguments.base.load(&base, &device)?;
    // Ids in, ids out works without a tokenizer; everything else needs one.
    let tokenizer = match base.tokenizer() {
        Err(_) if arguments.source.ids.is_some() && arguments.sampling.stop.is_empty() => None,
        opened => Some(opened?),
    };
    let ends = base.ends(tokenizer.as_ref());
    let mut session = Session { arguments, base, model, tokenizer, ends };
    if arguments.source.chat {
        return session.chat();
    }
    let ids = match (&arguments.source.ids, &session.tokenizer) {
        (Some(ids), _) => ids.clone(),
        (None, Some(tokenizer)) => tokenizer.encode(arguments.source.prompt.as_deref().unwrap_or_default(), true)?,
        (None, None) => unreachable!("a text prompt opened the tokenizer"),
    };
    let (generated, text) = session.answer(&ids, !arguments.json)?;
    if arguments.json {
        return print_json(&Report {
            prompt_tokens: ids.len(),
            prefill_tokens_per_second: ids.len() as f64 / generated.prefill.as_secs_f64(),
            tokens_per_second: generated.tokens_per_second(),
            ids: generated.ids,
            text,
            finish_reason: generated.finish_reason,
            device: device.name().to_string(),
        });
    }
    Ok(())
}

impl Session<'_> {
    /// Generates after `ids`; streams to standard output if `stream`. The text ends before a stop text.
    fn answer(&self, ids: &[u32], stream: bool) -> Result<(Generated, String), Box<dyn std::error::Error>> {
        let arguments = &self.arguments.sampling;
        let new_tokens = arguments.new_tokens(self.base.blueprint(), ids.len())?;
        let sampling = Sampling {
            temperature: arguments.temperature as f32,
            top_k: arguments.top_k,
            top_p: arguments.top_p as f32,
            repetition_penalty: arguments.repetition_penalty as f32,
            seed: self.arguments.compute.seed,
        };
        let mut text = StoppedText { stops: &arguments.stop, text: String::new(), shown: 0, stream };
        let mut decoding = self.tokenizer.as_ref().map(|tokenizer| tokenizer.stream(true));
        let mut on_token = |id: u32| match &mut decoding {
            Some(decoding) => Ok(text.push(&decoding.push(id)?)),
            None => {
                if stream {
                    show(&format!("{id} "));
                }
                Ok(true)
            }
        };
        let generated =
            generate(&self.model.decoder, &*self.model.forward().tuning, ids, new_tokens, &self.ends, &sampling, &mut on_token)?;
        if let Some(decoding) = decoding
            && generated.finish_reason == FinishReason::Length
        {
            text.push(&decoding.finish()?);
        }
        text.finish();
        Ok((generated, text.text))
    }

    fn chat(&mut self) -> Outcome {
        let template = self.arguments.template.open(&self.base)?;
        let Some(tokenizer) = &self.tokenizer else { unreachable!("a chat opened the tokenizer") };
        if template.is_default() {
            note("the model brings no chat template: ChatML is used");
            self.ends.extend(tokenizer.token_id("<|im_end|>"));
        }
        let terminal = io::stdin().is_terminal();
        let system = self.arguments.system.iter().map(|text| json!({"role": "system", "content": text}));
        let mut messages: Vec<Value> = system.collect();
        loop {
            if terminal {
                show("> ");
            }
            let mut line = String::new();
            if io::stdin().lock().read_line(&mut line).map_err(|error| format!("standard input: {error}"))? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                continue;
            }
            messages.push(json!({"role": "user", "content": line.trim_end()}));
            let ids = conversation_ids(tokenizer, &template, &messages, None, true)?;
            let (_, text) = self.answer(&ids, true)?;
            messages.push(json!({"role": "assistant", "content": text}));
        }
    }
}

/// Text as it comes, held back where it may be the beginning of a stop text.
struct StoppedText<'a> {
    stops: &'a [String],
    text: String,
    shown: usize,
    stream: bool,
}

impl StoppedText<'_> {
    /// Adds text; `false` once a stop text appeared, which is cut off.
    fn push(&mut self, more: &str) -> bool {
        self.text.push_str(more);
        let found = self.stops.iter().filter_map(|stop| self.text.find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(at);
        }
        let sure = if found.is_some() { self.text.len() } else { self.text.len() - self.possible_stop() };
        self.show_to(sure);
        found.is_none()
    }

    /// Bytes at the end that a stop text may begin with.
    fn possible_stop(&self) -> usize {
        let begins = |stop: &str| {
            let ends = stop.char_indices().map(|(at, _)| at).filter(|&at| at > 0 && self.text.ends_with(&stop[..at]));
            ends.max().unwrap_or(0)
        };
        self.stops.iter().map(|stop| begins(stop)).max().unwrap_or(0)
    }

    fn show_to(&mut self, end: usize) {
        if self.stream && end > self.shown {
            show(&self.text[self.shown..end]);
            self.shown = end;
        }
    }

    fn finish(&mut self) {
        self.show_to(self.text.len());
        if self.stream {
            show("\n");
        }
    }
}

/// Writes at once. A reader that has gone away is no reason to stop.
fn show(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_is_found_across_pieces_and_cut_off() {
        let stops = ["\n\n".to_string(), "END".to_string()];
        let mut text = StoppedText { stops: &stops, text: String::new(), shown: 0, stream: false };
        assert!(text.push("one E"));
        assert_eq!(text.possible_stop(), 1);
        assert!(text.push("N"));
        assert!(!text.push("D two"));
        assert_eq!(text.text, "one ");
    }
}
