//! A model's folder: one thing that opens all that is in it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use twox_hash::xxhash3_128;
use wgtune_engine::Device;

use crate::error::{Error, Result};
use crate::formats::chat_template::{ChatTemplate, TEMPLATE_FILE};
use crate::formats::files::{read_bytes, recover_directory, write_bytes};
use crate::formats::json::Object;
use crate::formats::model_card::is_hub_name;
use crate::formats::safetensors::{INDEX_FILE, MODEL_FILE, Weights};
use crate::formats::tokenizer::Tokenizer;
use crate::hash::xxh3;
use crate::peft::{self, ADAPTER_FILE, Tuned};
use crate::transformer::Blueprint;
use crate::transformer::load_decoder;

const GENERATION_FILE: &str = "generation_config.json";
/// The tokenizer and the chat template.
const TOKENIZER_FILES: [&str; 4] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", TEMPLATE_FILE];

/// Whether a file of this name is part of a model directory that is written here.
pub fn is_model_file(name: &str) -> bool {
    let is_shard = || name.starts_with("model-") && name.ends_with(".safetensors");
    let others = ["config.json", GENERATION_FILE, MODEL_FILE, INDEX_FILE];
    others.contains(&name) || TOKENIZER_FILES.contains(&name) || is_shard()
}

/// A model in its folder. The config is read; all else is opened when it is asked for.
pub struct Model {
    directory: PathBuf,
    blueprint: Blueprint,
    /// Found once: a large model is read whole for it.
    hash: OnceLock<String>,
}

impl Model {
    /// The model in a folder in Hugging Face's layout.
    ///
    /// # Errors
    /// [`Error::Data`] that says what is there instead of such a folder: nothing, a file, a hub's name, an adapter; what
    /// [`Blueprint::open`] says; a reward model.
    pub fn open(directory: &Path) -> Result<Model> {
        let model = Model::open_any(directory)?;
        if model.blueprint.scores {
            let message = format!("{} is a reward model, which gives scores: expected one that gives texts", directory.display());
            return Err(Error::Data { message });
        }
        Ok(model)
    }

    /// The same, where it may be a reward model too.
    ///
    /// # Errors
    /// As [`open`](Model::open).
    pub fn open_any(directory: &Path) -> Result<Model> {
        check_directory(directory)?;
        Ok(Model { directory: directory.to_path_buf(), blueprint: Blueprint::open(directory)?, hash: OnceLock::new() })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its sizes and tokens, generation's defaults included.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// What [`Tokenizer::open`] says, and one of another vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::open(&self.directory)?;
        tokenizer.check_vocabulary(self.blueprint.vocab_size)?;
        Ok(tokenizer)
    }

    /// Its chat template, or that of a file in its place.
    ///
    /// # Errors
    /// What [`ChatTemplate::open`] says.
    pub fn template(&self, file: Option<&Path>) -> Result<ChatTemplate> {
        match file {
            Some(file) => ChatTemplate::open_file(file, &self.directory),
            None => ChatTemplate::open(&self.directory),
        }
    }

    /// The tokens that end a text, its tokenizer's included; sorted.
    pub fn ends(&self, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
        ends(&self.blueprint, tokenizer)
    }

    /// The model on a device as a reward model, with an adapter: what gives the score is the model's own or the adapter's.
    ///
    /// # Errors
    /// Neither has a score; what [`load_decoder`] and [`peft::open`] say.
    pub fn load_scorer(&self, device: &Device, adapter: Option<&Path>) -> Result<Tuned> {
        let decoder = load_decoder(&self.directory, device)?;
        let is_kept = adapter.is_some_and(peft::scores);
        if !self.blueprint.scores && !is_kept {
            let message = format!("{} gives no scores: expected a reward model, or the adapter of one", self.directory.display());
            return Err(Error::Data { message });
        }
        // The adapter's takes this one's place.
        let zero = device.zeros([1, self.blueprint.hidden_size]);
        let decoder = if self.blueprint.scores { decoder } else { decoder.scoring(zero) };
        adapter.map_or(Ok(Tuned::bare(decoder.clone())), |directory| peft::open(directory, decoder))
    }

    /// The bare model on a device.
    ///
    /// # Errors
    /// What [`load_decoder`] says.
    pub fn load(&self, device: &Device) -> Result<Tuned> {
        Ok(Tuned::bare(load_decoder(&self.directory, device)?))
    }

    /// The model on a device, with an adapter.
    ///
    /// # Errors
    /// What [`load_decoder`] and [`peft::open`] say.
    pub fn load_adapted(&self, device: &Device, adapter: Option<&Path>) -> Result<Tuned> {
        let bare = self.load(device)?;
        adapter.map_or(Ok(bare.clone()), |directory| peft::open(directory, bare.decoder))
    }

    /// Checks that an adapter was made for these weights, where it says for which.
    ///
    /// # Errors
    /// [`Error::OtherBase`] where it was not; files that cannot be read.
    pub fn check_adapter(&self, adapter: &Path) -> Result<()> {
        recover_directory(adapter)?;
        match peft::base_of(adapter) {
            Some(base) if base != self.hash_weights()? => {
                Err(Error::OtherBase { adapter: adapter.to_path_buf(), model: self.directory.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A hash of what it is: its config, and its weights, of which this is the hash. The folder's place and its tokenizer have no
    /// part in it.
    pub fn fingerprint(&self, weights: &str) -> String {
        xxh3([self.blueprint.to_json().to_string().as_bytes(), weights.as_bytes()])
    }

    /// A hash of its weights: their names, shapes and elements. How they are cut into files has no part in it.
    ///
    /// # Errors
    /// What [`Weights::open_model`] says.
    pub fn hash_weights(&self) -> Result<String> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash.clone());
        }
        let weights = Weights::open_model(&self.directory)?;
        let mut hash = xxhash3_128::Hasher::new();
        for name in weights.names() {
            let view = weights.get(name)?;
            hash.write(format!("{name} {} {:?}", view.dtype, view.shape).as_bytes());
            hash.write(view.bytes);
        }
        Ok(self.hash.get_or_init(|| format!("{:032x}", hash.finish_128())).clone())
    }

    /// What an adapter may call it: the hub's name where the config says one, or else the folder's whole path, since the adapter is
    /// read from elsewhere.
    ///
    /// # Errors
    /// A config that cannot be read.
    pub fn name(&self) -> Result<String> {
        let name = Object::read(&self.directory.join("config.json"))?.string("_name_or_path")?;
        let whole = || std::path::absolute(&self.directory).unwrap_or_else(|_| self.directory.clone()).display().to_string();
        Ok(name.filter(|name| is_hub_name(name)).unwrap_or_else(whole))
    }

    /// Copies what belongs to it beside weights and config into another folder: the tokenizer and the chat template, and for a
    /// `whole` model generation's defaults too. What is not there is passed over.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn copy_companions(&self, to: &Path, whole: bool) -> Result<()> {
        let files = TOKENIZER_FILES.into_iter().chain(whole.then_some(GENERATION_FILE));
        for (name, path) in files.map(|name| (name, self.directory.join(name))).filter(|(_, path)| path.exists()) {
            write_bytes(&to.join(name), &read_bytes(&path)?)?;
        }
        Ok(())
    }
}

/// The tokens that end a text, by a blueprint and by a tokenizer; sorted.
pub fn ends(blueprint: &Blueprint, tokenizer: Option<&Tokenizer>) -> Vec<u32> {
    let mut ids = blueprint.eos_token_ids.clone();
    ids.extend(tokenizer.iter().flat_map(|tokenizer| tokenizer.eos_ids()));
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Checks that there is a model's folder at `path`, before anything of it is read.
fn check_directory(path: &Path) -> Result<()> {
    recover_directory(path)?;
    let shown = path.display();
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let convert = "transformers makes a folder of it: \
         AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE).save_pretrained(DIR), and the same with AutoTokenizer";
    let expected = "expected the folder of a model, with config.json, model.safetensors and tokenizer.json";
    let message = if path.is_file() && is_gguf(path) {
        format!("{shown} is a GGUF file; {expected}: {convert}")
    } else if path.is_file() {
        format!("{shown} is a file; {expected}")
    } else if !path.exists() && path.to_str().is_some_and(is_hub_name) {
        format!(
            "there is no folder {shown}; {expected}: nothing is downloaded here, `hf download {shown} --local-dir DIR` does it"
        )
    } else if !path.exists() {
        format!("there is no folder {shown}; {expected}")
    } else if !path.join("config.json").exists() {
        let entries = path.read_dir().map_err(Error::io(path))?;
        match entries.flatten().find(|entry| is_gguf(&entry.path())) {
            Some(gguf) => format!("{shown} has no config.json, only {}; {expected}: {convert}", gguf.file_name().display()),
            None if path.join(ADAPTER_FILE).exists() => format!("{shown} is the folder of an adapter; {expected}"),
            None => format!("{shown} has no config.json; {expected}"),
        }
    } else {
        return Ok(());
    };
    Err(Error::Data { message })
}
