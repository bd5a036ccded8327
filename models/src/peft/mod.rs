//! Ways of tuning: what of a model is trained, what is added to it, and what that does to a pass.
//!
//! A method is a file of this folder and its line in [`METHODS`]. It knows no other.

mod files;
mod full;
pub mod lora;
mod settings;
mod tuned;

use std::path::Path;
use std::sync::Arc;

use wgtune_engine::Tensor;
use wgtune_engine::random::Philox;

pub use files::{ADAPTER_FILE, ADAPTER_FILES, CONFIG_FILE, fingerprint};
pub use full::Full;
pub use lora::Lora;
pub use settings::{Form, Setting, Settings};
pub use tuned::Tuned;

use crate::error::Result;
use crate::formats::files::recover_directory;
use crate::formats::json::Object;
use crate::nn::Tuning;
use crate::transformer::Decoder;

/// Every way of tuning.
pub static METHODS: [Entry; 2] = [lora::ENTRY, full::ENTRY];

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
    /// Begins to tune a decoder, whose folder an adapter names so.
    ///
    /// # Errors
    /// A setting that does not fit the decoder.
    pub begin: fn(&Settings, Decoder, base: &str, seed: u64) -> Result<Tuned>,
    /// How what it trained is read again, where that is an adapter.
    pub adapter: Option<Adapter>,
}

/// An adapter's files in the layout of PEFT.
pub struct Adapter {
    /// What the config calls it.
    pub peft_type: &'static str,
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
/// Unreadable files, an adapter of a method that is not known, and one that was made for another base.
pub fn open(directory: &Path, decoder: Decoder) -> Result<Tuned> {
    recover_directory(directory)?;
    let keys = Object::read(&directory.join(CONFIG_FILE))?;
    let adapters = || METHODS.iter().filter_map(|entry| entry.adapter.as_ref());
    let expected = adapters().map(|adapter| format!("\"{}\"", adapter.peft_type)).collect::<Vec<_>>().join(" or ");
    let found = keys.required("peft_type", &expected, keys.string("peft_type")?)?;
    match adapters().find(|adapter| adapter.peft_type == found) {
        Some(adapter) => (adapter.open)(directory, decoder),
        None => Err(keys.error("peft_type", expected)),
    }
}

/// What is trained of a model: some of its own parameters, parameters that are added to it, or both.
pub trait Method: Send + Sync {
    /// Its name in [`METHODS`].
    fn name(&self) -> &'static str;

    /// Whether the decoder's own parameter of this name is trained.
    fn trains(&self, parameter: &str) -> bool;

    /// What is added to the decoder, under the names of the adapter's file.
    fn parameters(&self) -> Vec<(String, &Tensor)>;

    /// The same method with what `map` makes of each tensor that it adds.
    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method>;

    /// What it does to a pass; dropout is drawn from `random`, and there is none without it.
    fn tuning(&self, random: Option<Philox>) -> Arc<dyn Tuning>;

    /// A parameter of the decoder with what is added to it, in f32; `None` where nothing is.
    fn merged(&self, name: &str, parameter: &Tensor) -> Option<Tensor>;

    /// Whether [`write`](Self::write) writes an adapter, which needs its base, and not a whole model.
    fn is_adapter(&self) -> bool;

    /// Writes what was trained into a folder that may hold other files too: each is replaced on its own.
    ///
    /// # Errors
    /// A full disk or a device that failed; what was there before is then still there.
    fn write(&self, decoder: &Decoder, directory: &Path) -> Result<()>;
}
