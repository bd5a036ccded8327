//! `wgtune tokenize`.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use wgtune_models::data::IGNORE;
use wgtune_models::data::conversation::conversation_ids;
use wgtune_models::data::encode;
use wgtune_models::data::rows::{Columns, messages};
use wgtune_models::data::template::Template;
use wgtune_models::error::Error;
use wgtune_models::formats::files::read_text;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::model::Model;
use wgtune_models::wording::counted;

use crate::common::{Outcome, note, print_json, print_line};
use crate::config::Given;
use crate::data::{self, Coder, Conversations, Length};
use crate::numbers::whole;

/// What is shown that has no rows.
const NOT_DATA: [&str; 2] = ["text", "messages"];

/// How a virtual token is shown.
const VIRTUAL: &str = "<|virtual|>";

/// Shows what a model sees of a text, a conversation or a row of data: token ids and pieces, and which carry loss
#[derive(Args)]
#[command(
    after_help = "Examples:\n  wgtune tokenize --model DIR --text 'Once upon a time'\n  wgtune tokenize --model DIR --messages chat.json --json\n  \
    wgtune tokenize --model DIR --data rows.jsonl --row 3\n  \
    wgtune tokenize --model DIR --data rows.jsonl --prompt-template '<|virtual:8|> Question: {question}'"
)]
pub struct Arguments {
    /// A model directory with a tokenizer
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Which of the data's rows, from 1
    #[arg(long, value_name = "NUMBER", value_parser = whole(1..=usize::MAX), default_value_t = 1, conflicts_with_all = NOT_DATA)]
    row: usize,
    /// Columns of other names, as for sft
    #[arg(long, value_name = "OURS=THEIRS,…", value_parser = data::columns, conflicts_with_all = NOT_DATA)]
    columns: Option<Columns>,
    /// Make the row's text of its fields by this template, as sft does
    #[arg(long, value_name = "TEXT", value_parser = Template::parse, conflicts_with_all = NOT_DATA)]
    prompt_template: Option<Template>,
    #[command(flatten)]
    conversations: Conversations,
    #[command(flatten)]
    length: Length,
    /// Print JSON: ids, pieces and, for messages, their text; of a row, its examples, whose labels are -100 where there is no loss
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
    /// A data file, of which --row is shown as sft trains on it
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    ids: Vec<u32>,
    pieces: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// A row as it is trained on.
#[derive(Serialize)]
struct Row {
    /// Its file and line.
    row: String,
    examples: Vec<Labelled>,
}

#[derive(Serialize)]
struct Labelled {
    ids: Vec<u32>,
    pieces: Vec<String>,
    /// As the column of this name has them.
    labels: Vec<i64>,
}

/// Prints them.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let model = Model::open(&arguments.model)?;
    let tokenizer = model.tokenizer()?;
    if let Some(file) = &arguments.source.data {
        return row(arguments, &model, &tokenizer, file);
    }
    let (ids, text) = match &arguments.source.messages {
        Some(path) => {
            let ids = conversation(arguments, &model, &tokenizer, path)?;
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

/// Prints a row of a data file: a line a token, those that carry loss behind a star, and in colour on a terminal.
fn row(arguments: &Arguments, model: &Model, tokenizer: &Tokenizer, file: &Path) -> Outcome {
    let max_length = arguments.length.of(model.blueprint())?;
    let dataset = data::Source::of(file.into(), arguments.columns.clone()).read(arguments.prompt_template.as_ref())?;
    let number = arguments.row;
    let Some(row) = dataset.rows.get(number - 1) else {
        let rows = counted(dataset.rows.len(), "row");
        return Err(format!("--row is {number}, and {} has {rows}: expected one of them", file.display()).into());
    };
    let coder = Coder::open(model, None, &dataset, &arguments.conversations, max_length)?;
    let examples = coder.encoder().row(&dataset, row, &mut encode::Report::default())?;
    let piece = |(&id, piece)| if id as usize >= model.blueprint().vocab_size { VIRTUAL.into() } else { piece };
    let labelled = examples.iter().map(|example| Labelled {
        ids: example.ids.clone(),
        pieces: example.ids.iter().zip(tokenizer.pieces(&example.ids)).map(piece).collect(),
        labels: example.labels.iter().map(|&label| if label == IGNORE { -100 } else { label.into() }).collect(),
    });
    let shown = Row { row: dataset.place(row), examples: labelled.collect() };
    if arguments.json {
        return print_json(&shown);
    }
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (colour, plain) = if coloured { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
    for (index, (example, labelled)) in examples.iter().zip(&shown.examples).enumerate() {
        print_line(&format!("{}, example {} of {}", shown.row, index + 1, examples.len()))?;
        for (place, (id, piece)) in labelled.ids.iter().zip(&labelled.pieces).enumerate() {
            // Nothing comes before the first, which could predict it.
            let learnt = place > 0 && example.labels[place] != IGNORE;
            print_line(&if learnt { format!("{id:>7} {colour}* {piece}{plain}") } else { format!("{id:>7}   {piece}") })?;
        }
        print_line(&format!("{}, {} of them (*) with loss", counted(example.ids.len(), "token"), example.trained_tokens()))?;
    }
    Ok(())
}

fn conversation(arguments: &Arguments, model: &Model, tokenizer: &Tokenizer, path: &PathBuf) -> wgtune_models::Result<Vec<u32>> {
    let json: Value = serde_json::from_str(&read_text(path)?).map_err(Error::json(path))?;
    let list = json.get("messages").unwrap_or(&json);
    let messages = messages(list).map_err(|message| Error::Data { message: format!("{}: {message}", path.display()) })?;
    let template = arguments.conversations.template.open(model)?;
    if template.is_default() {
        note("the model brings no chat template: ChatML is used");
    }
    conversation_ids(tokenizer, &template, &messages, json.get("tools"), false)
}
