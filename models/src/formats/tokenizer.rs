//! Text to token ids and back, by Hugging Face's `tokenizers`.
//!
//! A `tokenizer.json` is a list of rewritings by whoever made the model, and may double a text as often as it likes: it is read
//! and applied in a [sandbox](super::sandbox).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, TokenizerBuilder};

use super::chat_template::{CHATML, TEMPLATE_FILE, special_tokens};
use super::files::{read_text, write_bytes};
use super::json::Object;
use super::sandbox::{Limits, Sandbox};
use crate::error::{Error, Result};
use crate::wording::sentence;

/// Ends a text, in tokenizers that are trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Opens and closes a turn of ChatML, in tokenizers that are trained here.
pub const TURN_MARKS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// A model's tokenizer, and what its folder says of the special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: Arc<tokenizers::Tokenizer>,
    sandbox: Sandbox,
    config: Map<String, Value>,
    chat_template: Option<String>,
    special: BTreeMap<String, String>,
    add_bos: Option<bool>,
    add_eos: bool,
    bos: Option<u32>,
    eos: Vec<u32>,
    pad: Option<u32>,
}

impl Tokenizer {
    /// Opens the tokenizer of a model's folder: `tokenizer.json`, and, where they are, the special tokens
    /// of `tokenizer_config.json`, `generation_config.json` and `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no `tokenizer.json`, [`Error::Tokenizer`] if it cannot be understood,
    /// [`Error::Json`] and [`Error::Value`] for the others.
    pub fn open(directory: &Path) -> Result<Tokenizer> {
        let path = directory.join("tokenizer.json");
        let text = read_text(&path)?;
        // The library panics at some of what is no JSON.
        serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(Error::json(&path))?;
        let config = Object::read_optional(&directory.join("tokenizer_config.json"))?;
        let mut tokenizer = Tokenizer::assemble(&path, text, config)?;

        for name in ["generation_config.json", "config.json"] {
            let config = Object::read_optional(&directory.join(name))?;
            for id in config.ids("eos_token_id")? {
                if !tokenizer.eos.contains(&id) {
                    tokenizer.eos.push(id);
                }
            }
            tokenizer.bos = tokenizer.bos.or(config.id("bos_token_id")?);
            tokenizer.pad = tokenizer.pad.or(config.id("pad_token_id")?);
        }
        let template = directory.join(TEMPLATE_FILE);
        if template.exists() {
            tokenizer.chat_template = Some(read_text(&template)?);
        }
        Ok(tokenizer)
    }

    /// Trains a byte-level BPE tokenizer: 256 bytes, the special tokens ([`END_OF_TEXT`] is id 0, then
    /// [`TURN_MARKS`]), and merges up to `vocab_size`, or fewer where the texts offer no more. The same
    /// texts give the same tokenizer. Sennrich et al., 2016, <https://arxiv.org/abs/1508.07909>.
    ///
    /// # Errors
    /// [`Error::Data`] if `vocab_size` has no room for the bytes and the special tokens.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab_size: usize) -> Result<Tokenizer> {
        let special = [END_OF_TEXT, TURN_MARKS[0], TURN_MARKS[1]];
        let least = 256 + special.len();
        if vocab_size < least {
            let message = format!("a vocabulary of {vocab_size} tokens; expected at least {least}");
            return Err(Error::Data { message });
        }
        let path = Path::new("tokenizer.json");
        let mut trainer = BpeTrainerBuilder::new()
            .vocab_size(vocab_size)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect::<HashSet<_>>())
            .special_tokens(special.map(|token| AddedToken::from(token, true)).to_vec())
            .build();
        let byte_level = ByteLevel::default().add_prefix_space(false);
        let mut tokenizer = TokenizerBuilder::<BPE, tokenizers::NormalizerWrapper, _, ByteLevel, _>::new()
            .with_model(BPE::default())
            .with_normalizer(None)
            .with_pre_tokenizer(Some(byte_level))
            .with_post_processor(None)
            .with_decoder(Some(byte_level))
            .build()
            .map_err(error(path))?;
        tokenizer.train(&mut trainer, texts).map_err(error(path))?;
        let text = tokenizer.to_string(false).map_err(error(path))?;

        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "add_bos_token": false,
            "clean_up_tokenization_spaces": false,
        });
        let config = Object::new(path, config)?;
        let mut trained = Tokenizer::assemble(path, text, config)?;
        trained.eos.extend(trained.token_id(TURN_MARKS[1]));
        trained.chat_template = Some(CHATML.into());
        Ok(trained)
    }

    /// The tokenizer that a `tokenizer.json` describes.
    fn assemble(path: &Path, json: String, config: Object) -> Result<Tokenizer> {
        let sandbox = Sandbox::new();
        let limits = limits(json.len(), 100, Duration::from_micros(5));
        let inner = within(&sandbox, limits, path, move || {
            let mut inner: tokenizers::Tokenizer = json.parse()?;
            if let Some(piece) = too_long(&inner) {
                // Its tree is taken down by as many calls as the piece has bytes: past the stack of whoever does it.
                let message = format!("a piece of {piece} bytes; expected at most {LONGEST_PIECE}");
                std::mem::forget(inner);
                return Err(message.into());
            }
            // What the data is cut and filled to is for the caller to say.
            inner.with_truncation(None)?;
            inner.with_padding(None);
            Ok(inner)
        })?;
        let special = special_tokens(&config);
        let id = |key: &str| special.get(key).and_then(|token| inner.token_to_id(token));
        Ok(Tokenizer {
            path: path.to_path_buf(),
            bos: id("bos_token"),
            eos: id("eos_token").into_iter().collect(),
            pad: id("pad_token"),
            add_bos: config.bool("add_bos_token")?,
            add_eos: config.bool("add_eos_token")?.unwrap_or(false),
            chat_template: None,
            special,
            config: config.map,
            inner: Arc::new(inner),
            sandbox,
        })
    }

    /// Applies it to as many bytes or ids as `size` says.
    fn apply<T: Send + 'static>(
        &self,
        size: usize,
        work: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        let limits = limits(size, 4096, Duration::from_micros(100));
        within(&self.sandbox, limits, &self.path, move || work(&inner))
    }

    /// The ids of a text. Special tokens written out in it become their ids either way; with
    /// `add_special` the ones that open (and, for some models, close) every text are added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a text the vocabulary cannot spell.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        // `add_bos_token` has the last word over what tokenizer.json itself would add.
        let by_template = add_special && self.add_bos != Some(false);
        let owned = text.to_string();
        let encode = move |inner: &tokenizers::Tokenizer| Ok(inner.encode_fast(owned, by_template)?.get_ids().to_vec());
        let mut ids = self.apply(text.len(), encode)?;
        if add_special {
            let bos = self.bos.filter(|_| self.add_bos == Some(true));
            if let Some(bos) = bos.filter(|bos| ids.first() != Some(bos)) {
                ids.insert(0, bos);
            }
            let eos = self.eos_id().filter(|_| self.add_eos);
            if let Some(eos) = eos.filter(|eos| ids.last() != Some(eos)) {
                ids.push(eos);
            }
        }
        Ok(ids)
    }

    /// The ids of a text, each with the bytes of the text it stands for; no special tokens are added.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let owned = text.to_string();
        self.apply(text.len(), move |inner| {
            let encoding = inner.encode(owned, false)?;
            let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end);
            Ok(encoding.get_ids().iter().copied().zip(offsets).collect())
        })
    }

    /// Whether [`encode`](Tokenizer::encode) opens every text with [`bos_id`](Tokenizer::bos_id).
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn opens_with_bos(&self) -> Result<bool> {
        let opening = self.encode("", true)?;
        Ok(self.bos.is_some() && opening.first().copied() == self.bos)
    }

    /// The text of ids; special tokens are written out, or left out if `skip_special`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails. An id past the vocabulary decodes to nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let owned = ids.to_vec();
        self.apply(ids.len(), move |inner| inner.decode(&owned, skip_special))
    }

    /// Decodes ids as they come. See [`TextStream`].
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream { tokenizer: self, skip_special, ids: Vec::new(), read: 0 }
    }

    /// How the vocabulary spells each id: `Ġthe`, `▁the`, `<0x0A>`.
    pub fn pieces(&self, ids: &[u32]) -> Vec<String> {
        let piece = |&id| self.inner.id_to_token(id).unwrap_or_default();
        ids.iter().map(piece).collect()
    }

    /// Tokens in the vocabulary, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token as the vocabulary spells it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Checks that every id has a row in an embedding of `vocab_size` rows.
    ///
    /// # Errors
    /// [`Error::Vocabulary`].
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        let largest_id = self.inner.get_vocab(true).into_values().max().unwrap_or(0);
        if (largest_id as usize) < vocab_size {
            return Ok(());
        }
        Err(Error::Vocabulary { path: self.path.clone(), largest_id, vocab_size })
    }

    /// The token that opens a text.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text: the first of [`eos_ids`](Tokenizer::eos_ids).
    pub fn eos_id(&self) -> Option<u32> {
        self.eos.first().copied()
    }

    /// All tokens that end a text; generation stops at any.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// The token that padding is filled with. Masks never look at it.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad
    }

    /// The special tokens by the names that chat templates know them by, as `eos_token`.
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and, if there is one, `chat_template.jinja`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join("tokenizer.json");
        let text = self.inner.to_string(true).map_err(error(&path))?;
        write_bytes(&path, text.as_bytes())?;
        let config = format!("{:#}\n", Value::Object(self.config.clone()));
        write_bytes(&directory.join("tokenizer_config.json"), config.as_bytes())?;
        match &self.chat_template {
            Some(template) => write_bytes(&directory.join(TEMPLATE_FILE), template.as_bytes()),
            None => Ok(()),
        }
    }
}

/// Text out of ids that come one by one. A character of several tokens is held back until it is whole.
///
/// Tokens are not decoded alone, since decoders look at neighbours: each time, the ids since the last text
/// are decoded together with those of the text before it, and what the latter give alone is cut off.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The context and the pending ids.
    ids: Vec<u32>,
    /// Of `ids`, those whose text was given out.
    read: usize,
}

impl TextStream<'_> {
    /// Takes the next id, and returns the text that became sure; often empty.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.pending()?;
        if text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        // Ids that give no text are no context: the decoder would take what follows for a text's start.
        let fresh = self.ids[self.read..].to_vec();
        self.read = fresh.len();
        self.ids = fresh;
        Ok(text)
    }

    /// The text held back at the end, with U+FFFD for bytes that never became a character.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn finish(self) -> Result<String> {
        self.pending()
    }

    fn pending(&self) -> Result<String> {
        let context = self.tokenizer.decode(&self.ids[..self.read], self.skip_special)?;
        let mut all = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(all.split_off(all.floor_char_boundary(context.len())))
    }
}

/// What work on `size` bytes or ids may take: enough for any tokenizer that is meant to be one, by this for each of them.
fn limits(size: usize, bytes: usize, time: Duration) -> Limits {
    Limits {
        bytes: (256usize << 20).saturating_add(bytes.saturating_mul(size)),
        blocks: usize::MAX,
        time: Duration::from_secs(20) + time.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX)),
    }
}

/// The longest piece of a vocabulary that is kept as a tree, in bytes: far past what models have.
const LONGEST_PIECE: usize = 1000;

/// The length of a piece of such a vocabulary that is longer.
fn too_long(tokenizer: &tokenizers::Tokenizer) -> Option<usize> {
    let ModelWrapper::Unigram(unigram) = tokenizer.get_model() else { return None };
    unigram.iter().map(|(piece, _)| piece.len()).find(|&length| length > LONGEST_PIECE)
}

fn within<T: Send + 'static>(
    sandbox: &Sandbox,
    limits: Limits,
    path: &Path,
    work: impl FnOnce() -> tokenizers::Result<T> + Send + 'static,
) -> Result<T> {
    let outcome = sandbox.run(limits, move || work().map_err(sentence));
    outcome.and_then(|outcome| outcome).map_err(error(path))
}

fn error<E: Display>(path: &Path) -> impl FnOnce(E) -> Error {
    move |error| Error::Tokenizer { path: path.to_path_buf(), message: sentence(error) }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
