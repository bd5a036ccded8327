//! The crate's one error: everything that files, data and devices can do wrong.

use std::io;
use std::path::{Path, PathBuf};

use wgtune_engine::device::NonFinite;

use crate::wording::{counted, sentence};

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, where, and what was expected instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written or renamed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file that should be JSON is not.
    #[error("{}:{line}:{column}: broken JSON: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the parser said.
        message: String,
    },

    /// A file that should be TOML is not.
    #[error("{}:{line}:{column}: broken TOML: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the parser said.
        message: String,
    },

    /// A key of a configuration file has a value that cannot be used.
    #[error("{}: `{key}` is {found}; expected {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its parents, as in `rope_scaling.factor`.
        key: String,
        /// The value as JSON, or `missing`.
        found: String,
        /// What would have been accepted.
        expected: String,
    },

    /// An adapter was made for another model.
    #[error("{}: made for a model of other weights than those in {}", adapter.display(), model.display())]
    OtherBase {
        /// The adapter's folder.
        adapter: PathBuf,
        /// The model's.
        model: PathBuf,
    },

    /// A run left every parameter that it trains as it was.
    #[error("after {} every trained parameter is as it was: expected that some had moved", counted(*steps, "step"))]
    Unmoved {
        /// Updates that were made.
        steps: usize,
    },

    /// A weight file breaks its own format, or a tensor in it cannot be used.
    #[error("{}: {message}", path.display())]
    Weights {
        /// The weight file, or the index of a sharded model.
        path: PathBuf,
        /// What is wrong, naming the tensor where there is one.
        message: String,
    },

    /// A tensor that is needed is in no weight file.
    #[error("{}: no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The weight file or the model's folder.
        path: PathBuf,
        /// The name that was looked up.
        tensor: String,
    },

    /// A tokenizer could not be read, trained or applied.
    #[error("{}: tokenizer: {message}", path.display())]
    Tokenizer {
        /// The tokenizer's file or folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },

    /// The tokenizer makes ids that the model has no embedding for.
    #[error(
        "{}: tokenizer of another vocabulary: its largest id is {largest_id}, \
         and the model's `vocab_size` is {vocab_size}",
        path.display()
    )]
    Vocabulary {
        /// The tokenizer's file.
        path: PathBuf,
        /// The largest id the tokenizer can make.
        largest_id: u32,
        /// The rows of the model's embedding.
        vocab_size: usize,
    },

    /// A chat template does not parse, or refused the conversation it was given.
    #[error("{}: chat template: {message}", path.display())]
    ChatTemplate {
        /// Where the template came from.
        path: PathBuf,
        /// What the template engine, or the template itself, said.
        message: String,
    },

    /// A row of a data file cannot be used.
    #[error("{}:{line}: {message}", path.display())]
    Row {
        /// The data file.
        path: PathBuf,
        /// The line that the row begins on, from 1.
        line: usize,
        /// What was found and what was expected.
        message: String,
    },

    /// The device failed.
    #[error(transparent)]
    Device(#[from] wgtune_engine::Error),

    /// A parameter that should be trained has no part in the loss.
    #[error("no gradient reaches `{parameter}`: the loss does not depend on it")]
    NoGradient {
        /// Its name.
        parameter: String,
    },

    /// The numbers ran away. In training, the parameters are those from before this step.
    #[error("{place}: the {what} is {value}; {}", first_not_finite(first))]
    NotFinite {
        /// `step 3` of training or `batch 2` of an evaluation, from 1.
        place: String,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The first result that was not finite when the same was computed again.
        first: Option<NonFinite>,
    },

    /// Long work was asked to stop, and stopped: nothing is half-written.
    #[error("interrupted")]
    Interrupted,

    /// The data as a whole cannot be used.
    #[error("{message}")]
    Data {
        /// What was found and what was expected.
        message: String,
    },
}

impl Error {
    /// For `map_err`: an I/O error on `path`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// For `map_err`: a file at `path` that is not the JSON it should be.
    pub fn json(path: impl AsRef<Path>) -> impl FnOnce(serde_json::Error) -> Error {
        move |error| {
            // serde's own sentence ends in the position, which stands before it here.
            let words = error.to_string();
            let message = sentence(words.split(" at line ").next().unwrap_or_default());
            Error::Json { path: path.as_ref().to_path_buf(), line: error.line(), column: error.column(), message }
        }
    }

    /// For `map_err`: the file at `path`, which holds `text`, is not the TOML that it should be.
    pub fn toml(path: impl AsRef<Path>, text: &str) -> impl FnOnce(toml::de::Error) -> Error {
        move |error| {
            let start = text.floor_char_boundary(error.span().map_or(0, |span| span.start));
            let before = &text[..start];
            let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
            let message = sentence(error.message().replace('\n', ", "));
            Error::Toml { path: path.as_ref().to_path_buf(), line: 1 + before.matches('\n').count(), column, message }
        }
    }
}

fn first_not_finite(first: &Option<NonFinite>) -> String {
    match first {
        Some(NonFinite { kernel, index, value }) => {
            format!(
                "the first op whose output was not finite is `{kernel}` ({value} at element {index}): \
                 look at the model's weights, or train at a lower learning rate"
            )
        }
        None => "every result was finite when it was computed again: either a sum of squares passes f32's range, \
                 or the device is not reliable"
            .into(),
    }
}
