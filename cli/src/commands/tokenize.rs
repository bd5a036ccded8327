//! `wgtune tokenize`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use wgtune_models::data::encode::conversation_ids;
use wgtune_models::data::rows::messages;
use wgtune_models::error::Error;
use wgtune_models::formats::files::read_text;
use wgtune_models::formats::model::check_directory;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::wording::counted;

use crate::common::{Outcome, Template, note, print_json, print_line};

/// Shows what a model sees of a text or a conversation: token ids and pieces
#[derive(Args)]
#[command(
    after_help = "Examples:\n  wgtune tokenize --model DIR --text 'Once upon a time'\n  wgtune tokenize --model DIR --messages chat.json --json"
)]
pub struct Arguments {
    /// A model directory with a tokenizer
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    template: Template,
    /// Print JSON: ids, pieces and, for messages, their text
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The text
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// A JSON file: a list of messages with `role` and `content`, or an object with `messages`
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    ids: Vec<u32>,
    pieces: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Prints them.
pub fn run(arguments: &Arguments) -> Outcome {
    check_directory(&arguments.model)?;
    let tokenizer = Tokenizer::open(&arguments.model)?;
    let (ids, text) = match &arguments.source.messages {
        Some(path) => {
            let ids = conversation(arguments, &tokenizer, path)?;
            let text = tokenizer.decode(&ids, false)?;
            (ids, Some(text))
        }
        None => (tokenizer.encode(arguments.source.text.as_deref().unwrap_or_default(), true)?, None),
    };
    let report = Report { pieces: tokenizer.pieces(&ids), ids, text };
    if arguments.json {
        return print_json(&report);
    }
    if let Some(text) = &report.text {
        print_line(&format!("{text}\n"))?;
    }
    report.ids.iter().zip(&report.pieces).try_for_each(|(id, piece)| print_line(&format!("{id:>7}  {piece}")))?;
    print_line(&counted(report.ids.len(), "token"))
}

fn conversation(arguments: &Arguments, tokenizer: &Tokenizer, path: &PathBuf) -> wgtune_models::Result<Vec<u32>> {
    let json: Value = serde_json::from_str(&read_text(path)?).map_err(Error::json(path))?;
    let list = json.get("messages").unwrap_or(&json);
    let messages = messages(list).map_err(|message| Error::Data { message: format!("{}: {message}", path.display()) })?;
    let template = arguments.template.open(&arguments.model)?;
    if template.is_default() {
        note("the model brings no chat template: ChatML is used");
    }
    conversation_ids(tokenizer, &template, &messages, json.get("tools"), false)
}
