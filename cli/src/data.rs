//! Data files made into examples for a model.

use std::path::{Path, PathBuf};

use wgtune_models::data::encode::{Encoder, Example};
use wgtune_models::data::rows::{Content, Dataset};
use wgtune_models::data::split::{HeldOut, split};
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::config::ModelConfig;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::hash::fnv1a;

use crate::common::note;

/// The examples of a data set for one model.
pub struct Prepared {
    /// To train on, or to evaluate.
    pub training: Vec<Example>,
    /// Held out.
    pub validation: Vec<Example>,
    /// What padding is filled with.
    pub padding: u32,
}

/// Reads data files, telling on standard error what was found.
pub fn read(files: &[PathBuf]) -> wgtune_models::Result<Dataset> {
    let dataset = Dataset::open(files)?;
    dataset.files.iter().for_each(note);
    Ok(dataset)
}

/// Reads and encodes data files for the model at `directory`, telling on standard error what was found.
pub fn prepare(
    directory: &Path,
    files: &[PathBuf],
    max_length: usize,
    held_out: HeldOut,
    seed: u64,
) -> wgtune_models::Result<Prepared> {
    let dataset = read(files)?;
    let config = ModelConfig::open(directory)?;
    // Rows that are tokenised already need no tokenizer.
    let tokenised = dataset.rows.iter().all(|row| matches!(row.content, Content::Ids { .. }));
    let tokenizer = if tokenised { None } else { Some(Tokenizer::open(directory)?) };
    if let Some(tokenizer) = &tokenizer {
        tokenizer.check_vocabulary(config.vocab_size)?;
    }
    let template = ChatTemplate::open(directory)?;
    let converses = |content: &Content| matches!(content, Content::Conversation { .. } | Content::Exchange { .. });
    if template.is_default() && dataset.rows.iter().any(|row| converses(&row.content)) {
        note("the model brings no chat template: ChatML is used");
    }
    let encoder = Encoder {
        tokenizer: tokenizer.as_ref(),
        template: &template,
        vocab_size: config.vocab_size,
        max_length,
        split_text: true,
    };
    let padding = tokenizer.as_ref().and_then(Tokenizer::pad_id).or(config.pad_token_id).unwrap_or(0);
    encode(&dataset, &encoder, padding, held_out, seed)
}

/// Splits and encodes a data set, telling on standard error what became of it.
pub fn encode(
    dataset: &Dataset,
    encoder: &Encoder,
    padding: u32,
    held_out: HeldOut,
    seed: u64,
) -> wgtune_models::Result<Prepared> {
    let (training, validation) = split(dataset.rows.clone(), held_out, seed)?;
    let (training, report) = encoder.encode(dataset, &training)?;
    note(report);
    let validation = if validation.is_empty() { Vec::new() } else { encoder.encode(dataset, &validation)?.0 };
    Ok(Prepared { training, validation, padding })
}

/// A number that differs where examples differ, to recognise a run's data when it is resumed.
pub fn fingerprint(examples: &[Example]) -> String {
    let words = examples.iter().flat_map(|example| example.ids.iter().chain(&example.labels).chain([&u32::MAX]));
    format!("{:016x}", fnv1a(words.flat_map(|word| word.to_le_bytes())))
}
