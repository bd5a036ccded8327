//! Ways of tuning: what of a model is trained, what is added to it, and what that does to a pass.
//!
//! A method is a file of this folder and its line in [`METHODS`]. It knows no other.

mod adapters;
mod convert;
mod encoder;
mod files;
mod full;
mod ia3;
pub mod lora;
mod mixed;
mod p_tuning;
mod prefix;
mod prompt;
mod settings;
mod sum;
mod targets;
mod tuned;
mod virtual_tokens;

use std::path::Path;
use std::sync::Arc;

use wgtune_engine::Tensor;
use wgtune_engine::random::Philox;

pub use convert::{Converted, to_lora};
pub use files::{ADAPTER_FILE, ADAPTER_FILES, CONFIG_FILE, Kept, base_of, fingerprint, scores, template_of};
pub use full::Full;
pub use lora::Lora;
pub use mixed::{Group, Mixed};
pub use settings::{Form, Setting, Settings};
pub use sum::WeightedSum;
pub use targets::Targets;
pub use tuned::Tuned;

/// The name of the setting that says how many virtual tokens there are.
pub const VIRTUAL_TOKENS: &str = virtual_tokens::COUNT.name;

use self::files::TEMPLATE;
use crate::error::{Error, Result};
use crate::formats::files::recover_directory;
use crate::formats::json::Object;
use crate::nn::Tuning;
use crate::transformer::Decoder;

/// Every way of tuning.
pub static METHODS: [Entry; 7] =
    [lora::ENTRY, prompt::ENTRY, p_tuning::ENTRY, prefix::ENTRY, adapters::ENTRY, ia3::ENTRY, full::ENTRY];

/// A way of tuning as it is chosen.
pub struct Entry {
    /// What it is called.
    pub name: &'static str,
    /// What it trains, in a few words.
    pub about: &'static str,
    /// The learning rate's greatest value where nobody gives one.
    pub learning_rate: f64,
    /// What can be chosen of it.
    pub settings: &'static [Setting],
    /// Begins to tune a decoder.
    ///
    /// # Errors
    /// A setting that does not fit the decoder.
    pub begin: fn(&Settings, Start) -> Result<Tuned>,
    /// How what it trained is read again, where that is an adapter.
    pub adapter: Option<Adapter>,
}

/// What a method begins with.
pub struct Start<'a> {
    /// The bare model.
    pub decoder: Decoder,
    /// What an adapter calls it.
    pub base: &'a str,
    /// What is random depends on it alone.
    pub seed: u64,
    /// Makes tokens of a text, as the model's tokenizer does.
    pub encode: &'a dyn Fn(&str) -> Result<Vec<u32>>,
}

/// An adapter's files in the layout of PEFT.
pub struct Adapter {
    /// What the config calls it.
    pub peft_type: &'static str,
    /// Whether it can be made a part of the model's own weights.
    pub merges: bool,
    /// Puts the adapter in a folder onto a decoder.
    pub open: fn(&Path, Decoder) -> Result<Tuned>,
}

/// The way of tuning of this name.
pub fn method(name: &str) -> Option<&'static Entry> {
    METHODS.iter().find(|entry| entry.name == name)
}

/// Puts the adapter in a folder onto a decoder, whichever method made it.
///
/// # Errors
/// What [`method_of`] says; unreadable files, an adapter that was made for another base, and one whose template is not its own.
pub fn open(directory: &Path, decoder: Decoder) -> Result<Tuned> {
    let (_, adapter) = method_of(directory)?;
    let score = files::score_of(directory, &decoder)?;
    let decoder = match (score, decoder.blueprint().scores) {
        (Some(score), true) => decoder.scoring(score),
        (None, _) => decoder,
        (Some(_), false) => {
            let message = format!(
                "{} is the adapter of a reward model, which gives scores: expected one that gives texts",
                directory.display()
            );
            return Err(Error::Data { message });
        }
    };
    let tuned = (adapter.open)(directory, decoder)?;
    match template_of(directory)? {
        None => Ok(tuned),
        Some(template) => tuned.with_template(template).map_err(|error| {
            let message = format!("the metadata's `{TEMPLATE}` is {error}");
            Error::Weights { path: directory.join(ADAPTER_FILE), message }
        }),
    }
}

/// The way of tuning that made the adapter in a folder.
///
/// # Errors
/// A config that cannot be read, or that is of a method that is not known.
pub fn method_of(directory: &Path) -> Result<(&'static Entry, &'static Adapter)> {
    recover_directory(directory)?;
    let keys = Object::read(&directory.join(CONFIG_FILE))?;
    let adapters = || METHODS.iter().filter_map(|entry| Some((entry, entry.adapter.as_ref()?)));
    let expected = adapters().map(|(_, adapter)| format!("\"{}\"", adapter.peft_type)).collect::<Vec<_>>().join(" or ");
    let found = keys.required("peft_type", &expected, keys.string("peft_type")?)?;
    adapters().find(|(_, adapter)| adapter.peft_type == found).ok_or_else(|| keys.error("peft_type", expected))
}

/// Puts the adapter in a folder onto the model that another one is on, so that rows of both may share a pass.
///
/// # Errors
/// What [`open`] says; of either, an adapter that keeps modules of the model trained whole, which the other's rows would meet.
pub fn open_beside(other: &Tuned, directory: &Path) -> Result<Tuned> {
    let opened = open(directory, other.decoder.clone())?;
    let whole = |tuned: &Tuned| tuned.decoder.parameters().into_iter().map(|(name, _)| name).find(|name| tuned.trains(name));
    match whole(other).filter(|_| other.method.is_adapter()).or(whole(&opened)) {
        None => Ok(Tuned { decoder: other.decoder.clone(), ..opened }),
        Some(name) => {
            let message =
                format!("an adapter that keeps {name} trained whole runs alone: expected one that leaves the model as it is");
            Err(Error::Data { message })
        }
    }
}

/// What is trained of a model: some of its own parameters, parameters that are added to it, or both.
pub trait Method: Send + Sync {
    /// Its name in [`METHODS`].
    fn name(&self) -> &'static str;

    /// Whether the decoder's own parameter of this name is trained.
    fn trains(&self, parameter: &str) -> bool {
        let _ = parameter;
        false
    }

    /// What is added to the decoder, under the names of the adapter's file.
    fn parameters(&self) -> Vec<(String, &Tensor)>;

    /// The same method with what `map` makes of each tensor that it adds.
    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method>;

    /// How many virtual tokens a text begins with.
    fn opening(&self) -> usize {
        0
    }

    /// How many keys stand before those of a text.
    fn prefix_length(&self) -> usize {
        0
    }

    /// What it does to a pass; dropout is drawn from `random`, and there is none without it.
    fn tuning(&self, random: Option<Philox>) -> Arc<dyn Tuning>;

    /// A parameter of the decoder with what is added to it, in f32; `None` where nothing is.
    fn merged(&self, name: &str, parameter: &Tensor) -> Option<Tensor> {
        let _ = (name, parameter);
        None
    }

    /// A parameter that [`merged`](Self::merged) made, as it was before, in f32; `None` where nothing was added to it.
    ///
    /// # Errors
    /// What it was cannot be known.
    fn unmerged(&self, name: &str, merged: &Tensor) -> Result<Option<Tensor>> {
        match self.merged(name, merged) {
            None => Ok(None),
            Some(_) => Err(Error::Data { message: format!("what {} added to `{name}` cannot be taken away", self.name()) }),
        }
    }

    /// What [`merged`](Self::merged) adds to a parameter [rows, columns], where that is a product: [rows, rank] and [rank, columns],
    /// in f32.
    fn update(&self, name: &str) -> Option<[Tensor; 2]> {
        let _ = name;
        None
    }

    /// Whether [`write`](Self::write) writes an adapter, which needs its base, and not a whole model.
    fn is_adapter(&self) -> bool {
        true
    }

    /// Writes what was trained into a folder that may hold other files too: each is replaced on its own. What an adapter
    /// keeps beside it is `kept`.
    ///
    /// # Errors
    /// A full disk or a device that failed; what was there before is then still there.
    fn write(&self, decoder: &Decoder, kept: Kept, directory: &Path) -> Result<()>;
}
