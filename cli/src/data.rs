//! Data files made into examples for a model.

use std::path::{Path, PathBuf};

use clap::Args;
use wgtune_models::data::batch::{Loader, Options};
use wgtune_models::data::encode::{Encoder, Example};
use wgtune_models::data::mixture;
use wgtune_models::data::rows::{Columns, Content, Dataset, Format, Row};
use wgtune_models::data::split::{HeldOut, split};
use wgtune_models::data::template::Template;
use wgtune_models::error::Error;
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::files::read_bytes;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::hash::xxh3;
use wgtune_models::model::{self, Model};
use wgtune_models::peft::Tuned;
use wgtune_models::transformer::Blueprint;

use crate::common::{self, check_length, note};
use crate::numbers::{MOST_TOKENS, whole};

const DATA_HELP: &str = r#"Data files, told by the ends of their names, with .gz or .zst after them or not:

  .jsonl .ndjson .json  a row a line, or an array of rows
  .csv .tsv             the first line names the columns
  .parquet              columns as the Hugging Face hub has them
  .txt .md              plain text; a line <|endoftext|> ends a document

A row of every form, as JSON:

  {"prompt": "What is 2 and 2?", "completion": "4"}
  {"messages": [{"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"}]}
  {"instruction": "Add.", "input": "2 2", "output": "4"}
  {"conversations": [{"from": "human", "value": "Hi"},
                     {"from": "gpt", "value": "Hello"}]}
  {"text": "All of it is learnt."}
  {"input_ids": [5, 9, 2], "labels": [-100, 9, 2]}

What dpo, orpo, reward and kto read, and prompts for ppo and grpo, texts or messages:

  {"prompt": "2 and 2 is", "chosen": " 4", "rejected": " 5"}
  {"prompt": "2 and 2 is", "answers": [" 4", " four", " 5"]}
  {"prompt": "2 and 2 is", "completion": " 5", "label": false}
  {"prompt": "2 and 2 is"}

Where a template makes the texts (sft --prompt-template, and then the adapter's own), rows have
its fields, texts or numbers, and the completion:

  {"question": "What is 2 and 2?", "completion": "4"}

And as CSV:

  prompt,completion
  What is 2 and 2?,"4, exactly"

Files in chosen shares, whatever their sizes, for training: a weight behind each name,
as in --data a.jsonl:0.7 b.jsonl:0.3"#;

/// Where rows come from.
#[derive(Args)]
pub struct Source {
    /// Data files: JSON Lines, JSON arrays, CSV, TSV, Parquet or plain text, and .gz or .zst of them; for training, with the weights
    /// of a mixture or without (a.jsonl:0.7 b.jsonl:0.3)
    #[arg(long, value_name = "FILE", num_args = 1.., required = true, long_help = DATA_HELP)]
    data: Vec<PathBuf>,
    /// Columns of other names, as in prompt=question,completion=solution: ours, and the data's
    #[arg(long, value_name = "OURS=THEIRS,…", value_parser = columns)]
    columns: Option<Columns>,
}

/// What `--columns` maps.
pub fn columns(text: &str) -> Result<Columns, String> {
    let pair = |pair: &str| {
        let (ours, theirs) = pair.split_once('=').ok_or(format!("`{}`: expected OURS=THEIRS", pair.trim()))?;
        Ok((ours.trim().into(), theirs.trim().into()))
    };
    Columns::new(text.split(',').map(pair).collect::<Result<_, String>>()?)
}

/// How long a row may be.
#[derive(Args)]
pub struct Length {
    /// Tokens of the longest row; longer rows are cut, and counted [default: 1024, or as many as the model was made for]
    #[arg(long, value_parser = whole(2..=MOST_TOKENS), value_name = "TOKENS")]
    pub max_length: Option<usize>,
    /// Allow more tokens than the model was made for (its max_position_embeddings, and what its rope scaling makes of them)
    #[arg(long)]
    pub beyond: bool,
}

impl Length {
    const DEFAULT: usize = 1024;

    /// For rows that this model reads.
    pub fn of(&self, config: &Blueprint) -> Result<usize, String> {
        match self.max_length {
            None => Ok(config.longest_text().map_or(Length::DEFAULT, |longest| longest.min(Length::DEFAULT))),
            Some(length) => check_length(config, "the longest row", length, self.beyond).map(|()| length),
        }
    }

    /// For rows of a model that is made for them.
    pub fn of_new_model(&self) -> usize {
        self.max_length.unwrap_or(Length::DEFAULT)
    }
}

/// How conversations become text, and which of it carries loss.
#[derive(Args)]
pub struct Conversations {
    #[command(flatten)]
    pub template: common::Template,
    /// Loss on the last of the assistant's turns in a conversation, instead of on all
    #[arg(long)]
    pub last_turn_only: bool,
}

impl Source {
    /// A single file.
    pub fn of(file: PathBuf, columns: Option<Columns>) -> Source {
        Source { data: vec![file], columns }
    }

    /// Reads the files, whose rows a template may make texts of, telling on standard error what was found.
    pub fn read(&self, template: Option<&Template>) -> wgtune_models::Result<Dataset> {
        self.read_wanting(template, &[])
    }

    /// The same, for rows that are of one of these forms wherever they can be.
    pub fn read_wanting(&self, template: Option<&Template>, wanted: &'static [Format]) -> wgtune_models::Result<Dataset> {
        let dataset = self.open(template, wanted, |_| true)?;
        dataset.files.iter().for_each(note);
        Ok(dataset)
    }

    /// The same, without a word, of those of the files for which that is so.
    pub fn open(
        &self,
        template: Option<&Template>,
        wanted: &'static [Format],
        is_read: impl Fn(&PathBuf) -> bool,
    ) -> wgtune_models::Result<Dataset> {
        let files: Vec<PathBuf> = self.files().map_err(|message| Error::Data { message })?.into_iter().filter(is_read).collect();
        let columns = self.columns.clone().unwrap_or_default().filling(template.cloned()).wanting(wanted);
        Dataset::open(&files, &columns)
    }

    /// What each file weighs; `None` where they are not mixed.
    ///
    /// # Errors
    /// A sentence, where a weight is none, or only some files have one.
    pub fn weights(&self) -> Result<Option<Vec<f64>>, String> {
        let files = self.weighted()?;
        let weights: Vec<f64> = files.iter().filter_map(|(_, weight)| *weight).collect();
        match files.iter().find(|(_, weight)| weight.is_none()) {
            None if weights.iter().sum::<f64>().is_finite() => Ok(Some(weights)),
            None => Err("weights whose sum is past all numbers: expected smaller ones".into()),
            Some(_) if weights.is_empty() => Ok(None),
            Some((file, _)) => Err(format!(
                "{} has no weight, and other files have: expected one behind each, as in {}:1, or none",
                file.display(),
                file.display()
            )),
        }
    }

    /// The files.
    ///
    /// # Errors
    /// A sentence, where a weight is none.
    pub fn files(&self) -> Result<Vec<PathBuf>, String> {
        Ok(self.weighted()?.into_iter().map(|(file, _)| file).collect())
    }

    /// A hash of the files as they are, but for those of this name.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn fingerprint_without(&self, name: &str) -> wgtune_models::Result<String> {
        let files = self.files().map_err(|message| Error::Data { message })?;
        let read = files.iter().filter(|file| !file.ends_with(name)).map(|file| read_bytes(file));
        Ok(xxh3(read.collect::<wgtune_models::Result<Vec<_>>>()?))
    }

    fn weighted(&self) -> Result<Vec<(PathBuf, Option<f64>)>, String> {
        self.data.iter().map(|file| weighted(file)).collect()
    }
}

/// A file and the weight behind the last colon of its name, where no file is really called so.
fn weighted(name: &Path) -> Result<(PathBuf, Option<f64>), String> {
    let parts = name.to_str().filter(|_| !name.exists()).and_then(|text| text.rsplit_once(':'));
    match parts.and_then(|(file, weight)| Some((file, weight.parse::<f64>().ok()?))) {
        None => Ok((name.into(), None)),
        Some((file, weight)) if weight > 0.0 && weight.is_finite() => Ok((file.into(), Some(weight))),
        Some((file, weight)) => Err(format!("{file} weighs {weight}: expected a number above 0 behind the colon")),
    }
}

/// The examples of a data set for one model.
pub struct Prepared {
    /// To train on, or to evaluate.
    pub training: Vec<Example>,
    /// Held out.
    pub validation: Vec<Example>,
    /// Where the examples to train on are from, in their order, if their files are mixed.
    pub mixture: Option<Vec<mixture::Source>>,
    /// What padding is filled with.
    pub padding: u32,
    /// A hash of the rows that they are made of.
    pub rows: String,
    /// The tokens at which generation stops, each with how the vocabulary spells it.
    pub ends: Vec<(u32, String)>,
}

/// What encodes rows for a model.
pub struct Coder {
    config: Blueprint,
    tokenizer: Option<Tokenizer>,
    template: ChatTemplate,
    opening: Vec<u32>,
    max_length: usize,
    prefix: usize,
    last_turn_only: bool,
}

impl Coder {
    /// Opens what a model needs for a data set, and looks at how it is tuned.
    pub fn open(
        model: &Model,
        tuned: Option<&Tuned>,
        dataset: &Dataset,
        conversations: &Conversations,
        max_length: usize,
    ) -> wgtune_models::Result<Coder> {
        // Rows that are tokenised already need no tokenizer.
        let tokenised = dataset.rows.iter().all(|row| matches!(row.content, Content::Ids { .. }));
        let tokenizer = if tokenised { None } else { Some(model.tokenizer()?) };
        let template = conversations.template.open(model)?;
        let converses = |content: &Content| match content {
            Content::Ranked { answers, .. } => answers.iter().any(is_conversation),
            Content::Labelled { answer, .. } => is_conversation(answer),
            own => is_conversation(own),
        };
        if template.is_default() && dataset.rows.iter().any(|row| converses(&row.content)) {
            note("the model brings no chat template: ChatML is used");
        }
        Ok(Coder {
            config: model.blueprint().clone(),
            tokenizer,
            template,
            opening: tuned.map(Tuned::opening).unwrap_or_default(),
            max_length,
            prefix: tuned.map_or(0, |tuned| tuned.method.prefix_length()),
            last_turn_only: conversations.last_turn_only,
        })
    }

    /// What padding is filled with.
    pub fn padding(&self) -> u32 {
        padding(self.tokenizer.as_ref(), &self.config)
    }

    /// What encodes them.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder {
            tokenizer: self.tokenizer.as_ref(),
            template: &self.template,
            vocab_size: self.config.vocab_size,
            opening: &self.opening,
            max_length: self.max_length,
            prefix: self.prefix,
            split_text: true,
            last_turn_only: self.last_turn_only,
        }
    }
}

fn is_conversation(content: &Content) -> bool {
    matches!(content, Content::Conversation { .. } | Content::Exchange { .. })
}

/// Reads and encodes data files for a model, telling on standard error what was found.
pub fn prepare(
    model: &Model,
    tuned: &Tuned,
    source: &Source,
    conversations: &Conversations,
    max_length: usize,
    held_out: HeldOut,
    seed: u64,
) -> wgtune_models::Result<Prepared> {
    let dataset = source.read(tuned.template.as_deref())?;
    let coder = Coder::open(model, Some(tuned), &dataset, conversations, max_length)?;
    let weights = source.weights().map_err(|message| Error::Data { message })?;
    encode(&dataset, weights.as_deref(), &coder.encoder(), &coder.config, held_out, seed)
}

/// The rows to train on and those held out: of all files together, or of each where files are mixed, by the same share.
pub fn parted(
    dataset: &Dataset,
    is_mixed: bool,
    held_out: HeldOut,
    seed: u64,
) -> wgtune_models::Result<Vec<(Vec<Row>, Vec<Row>)>> {
    let all = dataset.rows.len();
    if !is_mixed {
        return Ok(vec![split(dataset.rows.clone(), held_out, seed)?]);
    }
    let share = match held_out {
        HeldOut::Count(count) if count < all => HeldOut::Fraction(count as f64 / all as f64),
        held_out => held_out,
    };
    let part = |file: usize| {
        let rows: Vec<Row> = dataset.rows.iter().filter(|row| row.file == file).cloned().collect();
        split(rows, share, seed).map_err(|error| of_file(dataset, file, error))
    };
    (0..dataset.files.len()).map(part).collect()
}

/// An error that names no file, with it.
fn of_file(dataset: &Dataset, file: usize, error: Error) -> Error {
    match error {
        Error::Data { message } => Error::Data { message: format!("{}: {message}", dataset.files[file].path.display()) },
        error => error,
    }
}

/// Splits and encodes a data set for a model of this config, telling on standard error what became of it.
pub fn encode(
    dataset: &Dataset,
    weights: Option<&[f64]>,
    encoder: &Encoder,
    config: &Blueprint,
    held_out: HeldOut,
    seed: u64,
) -> wgtune_models::Result<Prepared> {
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    let mut sources = Vec::new();
    for (file, (rows, held)) in parted(dataset, weights.is_some(), held_out, seed)?.into_iter().enumerate() {
        let named = |error| if weights.is_some() { of_file(dataset, file, error) } else { error };
        let (examples, report) = encoder.encode(dataset, &rows).map_err(named)?;
        note(report);
        if let Some(weights) = weights {
            let name = dataset.files[file].path.display().to_string();
            sources.push(mixture::Source { name, weight: weights[file], examples: examples.len() });
        }
        training.extend(examples);
        let (examples, report) = encoder.examples(dataset, &held)?;
        if examples.is_empty() && report.rows > 0 {
            note(format!("no validation, for want of a token to learn in what was held out for it: {report}"));
        }
        validation.extend(examples);
    }
    let mixture = weights.map(|_| sources);
    let padding = padding(encoder.tokenizer, config);
    Ok(Prepared { training, validation, mixture, padding, rows: dataset.fingerprint(), ends: ends(encoder.tokenizer, config) })
}

fn padding(tokenizer: Option<&Tokenizer>, config: &Blueprint) -> u32 {
    tokenizer.and_then(Tokenizer::pad_id).or(config.pad_token_id).unwrap_or(0)
}

fn ends(tokenizer: Option<&Tokenizer>, config: &Blueprint) -> Vec<(u32, String)> {
    let ids = model::ends(config, tokenizer);
    let pieces = tokenizer.map_or_else(|| ids.iter().map(u32::to_string).collect(), |tokenizer| tokenizer.pieces(&ids));
    ids.into_iter().zip(pieces).collect()
}

/// A hash of examples, to recognise a run's when it is resumed.
pub fn fingerprint<'a>(examples: impl IntoIterator<Item = &'a Example>) -> String {
    let words = examples.into_iter().flat_map(|example| example.ids.iter().chain(&example.labels).chain([&u32::MAX]));
    xxh3(words.map(|word| word.to_le_bytes()))
}

/// Batches of examples that are only evaluated.
pub fn evaluation_loader(examples: Vec<Example>, batch_size: usize, padding: u32) -> Loader {
    Loader::new(examples, Options { batch_size, packing: None, shuffle: false, seed: 0, padding })
}
