//! `wgtune score`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};
use wgtune_models::data::encode::{Encoder, Report};
use wgtune_models::data::rows::{Content, Dataset, Format, objects};
use wgtune_models::formats::files::write_bytes;
use wgtune_models::model::Model;
use wgtune_models::rl::score::scores;

use crate::common::{Base, Compute, Outcome, Overwrite, note, on_interrupt, print_line};
use crate::config::Given;
use crate::data::{Coder, Conversations, Length, Source};
use crate::numbers::whole;
use crate::progress::Progress;
use crate::watch::unless;

/// Adds to each row the score that a reward model gives it
#[derive(Args)]
#[command(
    after_help = "A JSON line comes of each row, in the files' order: the row itself with `score`, or, where it holds several answers, \
    `scores`, those of `chosen` and `rejected` or of `answers`.\n\n\
    Examples:\n  wgtune score --model REWARD --data answers.jsonl\n  \
    wgtune score --model DIR --adapter REWARD --data pairs.jsonl --out scored.jsonl"
)]
pub struct Arguments {
    #[command(flatten)]
    base: Base,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    conversations: Conversations,
    #[command(flatten)]
    length: Length,
    /// Write the rows to this file, instead of to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Texts that are scored together
    #[arg(long, default_value_t = 8, value_parser = whole(1..=65_536))]
    batch_size: usize,
    #[command(flatten)]
    compute: Compute,
}

/// Scores all rows.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let Arguments { base, source, conversations, length, out, overwrite, batch_size, compute } = arguments;
    out.as_deref().map_or(Ok(()), |file| overwrite.check_file(file))?;
    if source.weights()?.is_some() {
        return Err("--data has weights, which are for training: expected names of files alone".into());
    }
    let model = Model::open_any(&base.model)?;
    let max_length = length.of(model.blueprint())?;
    let adapter = base.adapter.as_ref().map(|adapter| base.task.of(adapter)).transpose()?;
    base.force.check(&model, adapter.as_deref())?;
    let scorer = model.load_scorer(&compute.open()?, adapter.as_deref())?;
    let dataset = source.read_wanting(scorer.template.as_deref(), &[Format::Preference, Format::Ranked])?;
    let coder = Coder::open(&model, Some(&scorer), &dataset, conversations, max_length)?;
    // A text is scored as a whole.
    let (encoder, mut report) = (Encoder { split_text: false, ..coder.encoder() }, Report::default());
    let answers =
        dataset.rows.iter().map(|row| encoder.answers(&dataset, row, &mut report)).collect::<wgtune_models::Result<Vec<_>>>()?;
    if report.truncated > 0 {
        note(format!("{} cut at {max_length} tokens, and scored there", report.truncated));
    }
    let objects = given(&dataset)?;
    for (row, object) in dataset.rows.iter().zip(&objects) {
        if let Some(key) = ["score", "scores"].into_iter().find(|key| object.contains_key(*key)) {
            let message = format!("the row has `{key}` already; expected none");
            return Err(dataset.error_at(row, message).into());
        }
    }
    let texts: Vec<&[u32]> = answers.iter().flatten().map(|answer| answer.ids.as_slice()).collect();
    let interrupted = on_interrupt("this batch")?;
    let mut bar = Progress::new("scoring", texts.len().div_ceil(*batch_size), 0);
    let found = scores(&scorer, &texts, *batch_size, &mut |_, _| {
        bar.advance("");
        unless(&interrupted)
    })?;
    drop(bar);
    let (mut found, mut lines) = (found.into_iter(), String::new());
    for ((row, mut object), answers) in dataset.rows.iter().zip(objects).zip(&answers) {
        let own: Vec<f32> = found.by_ref().take(answers.len()).collect();
        match (&row.content, &own[..]) {
            (Content::Ranked { .. }, scores) => object.insert("scores".into(), json!(scores)),
            (_, [.., score]) => object.insert("score".into(), json!(score)),
            (_, []) => object.insert("score".into(), Value::Null),
        };
        lines += &format!("{}\n", Value::Object(object));
    }
    match out {
        Some(file) => Ok(write_bytes(file, lines.as_bytes())?),
        None => print_line(lines.trim_end()),
    }
}

/// The rows of all files as they were given.
fn given(dataset: &Dataset) -> wgtune_models::Result<Vec<Map<String, Value>>> {
    let mut all = Vec::new();
    for (index, file) in dataset.files.iter().enumerate() {
        match file.format {
            Format::Text if objects(&file.path).is_err() => {
                let texts = dataset.rows.iter().filter(|row| row.file == index).map(|row| match &row.content {
                    Content::Text(text) => Map::from_iter([("text".to_string(), json!(text))]),
                    _ => Map::new(),
                });
                all.extend(texts);
            }
            _ => all.extend(objects(&file.path)?.into_iter().map(|(_, row)| row)),
        }
    }
    Ok(all)
}
