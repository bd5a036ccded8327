//! `wgtune generate`.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};
use wgtune_models::data::conversation::conversation_ids;
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::tokenizer::{TextStream, Tokenizer};
use wgtune_models::generate::{FinishReason, Generated, Request, Sampling, generate};
use wgtune_models::model::Model;
use wgtune_models::peft::{self, Tuned};
use wgtune_models::transformer::Blueprint;

use self::answer::Answer;
use crate::common::{Base, Compute, Outcome, Overwrite, Template, check_length, note, print_json};
use crate::config::Given;
use crate::numbers::{MOST_TOKENS, above_zero, at_least_zero, share, token_id, whole};

mod answer;
mod prompts;

/// Continues a prompt or a file of them, or holds a conversation
#[derive(Args)]
#[command(
    after_help = "Examples:\n  wgtune generate --model DIR --prompt 'Once upon a time' --max-new-tokens 100 --temperature 0\n  \
    wgtune generate --model DIR --adapter DIR --chat\n  \
    wgtune generate --model DIR --prompts prompts.jsonl --out answers.jsonl"
)]
pub struct Arguments {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    source: Source,
    /// What the system says before a chat begins
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompt", "ids", "fields", "prompts"])]
    system: Option<String>,
    #[command(flatten)]
    template: Template,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Print one JSON document: ids, text, finish_reason, tokens per second
    #[arg(long, conflicts_with_all = ["chat", "prompts"])]
    json: bool,
    /// Rows of --prompts that run together
    #[arg(long, value_name = "ROWS", default_value_t = 16, value_parser = whole(1..=4096), conflicts_with_all = ["prompt", "ids", "fields", "chat"])]
    batch: usize,
    /// Write the lines of --prompts to this file, instead of printing them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "ids", "fields", "chat"])]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: Overwrite,
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
    /// The fields of the adapter's template as a JSON object, where it keeps one, as in '{"question": "Why?"}'
    #[arg(long, value_name = "JSON", value_parser = fields)]
    fields: Option<Map<String, Value>>,
    /// A file of texts to continue, or of conversations to answer: a JSON line comes of each
    #[arg(long, visible_alias = "requests", value_name = "FILE", long_help = prompts::HELP)]
    prompts: Option<PathBuf>,
    /// Take turns: lines of standard input are answered through the model's chat template
    #[arg(long)]
    chat: bool,
}

fn fields(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|_| "expected a JSON object, as {\"question\": \"Why?\"}".into())
}

#[derive(Args, Clone)]
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
    /// How tokens are drawn, from this seed.
    fn sampling(&self, seed: u64) -> Sampling {
        Sampling {
            temperature: self.temperature as f32,
            top_k: self.top_k,
            top_p: self.top_p as f32,
            repetition_penalty: self.repetition_penalty as f32,
            seed,
        }
    }

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
    /// As --adapter says, and then what else rows are continued by.
    models: Vec<Tuned>,
    tokenizer: Option<Tokenizer>,
    ends: Vec<u32>,
}

/// Streams the text as it comes, or prints the report.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let base = arguments.base.open()?;
    arguments.out.as_deref().map_or(Ok(()), |file| arguments.overwrite.check_file(file))?;
    let device = arguments.compute.open()?;
    let by_row = arguments.source.prompts.is_some() && arguments.base.task.task.is_none() && arguments.base.table()?.is_some();
    let model = if by_row { base.load(&device)? } else { arguments.base.load(&base, &device)? };
    // Ids in, ids out works without a tokenizer; everything else needs one.
    let tokenizer = match base.tokenizer() {
        Err(_) if arguments.source.ids.is_some() && arguments.sampling.stop.is_empty() => None,
        opened => Some(opened?),
    };
    let ends = base.ends(tokenizer.as_ref());
    let mut session = Session { arguments, base, models: vec![model], tokenizer, ends };
    if arguments.source.chat {
        return session.chat();
    }
    if let Some(file) = &arguments.source.prompts {
        return prompts::run(&mut session, file);
    }
    let ids = match (&arguments.source.ids, &session.tokenizer) {
        (Some(ids), _) => ids.clone(),
        (None, Some(tokenizer)) => match &arguments.source.fields {
            Some(fields) => session.models[0].filled(tokenizer, fields)?,
            None => session.models[0].prompt(tokenizer, arguments.source.prompt.as_deref().unwrap_or_default())?,
        },
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
        let request = Request {
            model: 0,
            prompt: ids.to_vec(),
            max_new_tokens: arguments.new_tokens(self.base.blueprint(), self.models[0].positions(ids))?,
            ends: self.ends.clone(),
            sampling: arguments.sampling(self.arguments.compute.seed),
        };
        let mut answer = Answer::new(&arguments.stop, self.stream(), stream);
        let generated = generate(&self.models, 1, &mut std::iter::once(request), &mut answer)?;
        let generated = generated.into_iter().next().expect("one of a request");
        let text = answer.finish(generated.finish_reason)?;
        Ok((generated, text))
    }

    /// Opens an adapter beside the model that is there.
    fn put_on(&mut self, adapter: &Path) -> wgtune_models::Result<()> {
        self.arguments.base.force.check(&self.base, Some(adapter))?;
        self.models.push(peft::open_beside(&self.models[0], adapter)?);
        Ok(())
    }

    /// What makes text of a row's tokens.
    fn stream(&self) -> Option<TextStream<'_>> {
        self.tokenizer.as_ref().map(|tokenizer| tokenizer.stream(true))
    }

    /// The model's chat template; where it is the default one, what ends its turns ends answers.
    fn template(&mut self) -> Result<ChatTemplate, Box<dyn std::error::Error>> {
        let template = self.arguments.template.open(&self.base)?;
        if template.is_default() {
            note("the model brings no chat template: ChatML is used");
            self.ends.extend(self.tokenizer.iter().filter_map(|tokenizer| tokenizer.token_id("<|im_end|>")));
        }
        Ok(template)
    }

    fn chat(&mut self) -> Outcome {
        self.models[0].check_converses()?;
        let template = self.template()?;
        let Some(tokenizer) = &self.tokenizer else { unreachable!("a chat opened the tokenizer") };
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

/// Writes at once. A reader that has gone away is no reason to stop.
fn show(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
