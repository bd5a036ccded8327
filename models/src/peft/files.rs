//! The folder of an adapter in PEFT's layout: `adapter_config.json` beside `adapter_model.safetensors`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use wgtune_engine::{DType, Device, Tensor};

use crate::data::template::Template;
use crate::error::{Error, Result};
use crate::formats::files::{read_bytes, write_bytes};
use crate::formats::json::Object;
use crate::formats::model_card::{CARD_FILE, Card};
use crate::formats::safetensors::{self, TensorInfo, Weights};
use crate::hash::xxh3;
use crate::transformer::{Decoder, SCORE};

/// The name of an adapter's weight file.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The name of an adapter's config.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The names of what an adapter is saved as, its model card included.
pub const ADAPTER_FILES: [&str; 3] = [ADAPTER_FILE, CONFIG_FILE, CARD_FILE];

/// What PEFT puts before a model's own tensor names.
pub(super) const PREFIX: &str = "base_model.model.";

/// A hash of the adapter in a folder: of its config and its weights.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(directory: &Path) -> Result<String> {
    Ok(xxh3([read_bytes(&directory.join(CONFIG_FILE))?, read_bytes(&directory.join(ADAPTER_FILE))?]))
}

/// The hash of the weights that the adapter in a folder was made for, where there is one that says so.
pub fn base_of(directory: &Path) -> Option<String> {
    Weights::open_file(&directory.join(ADAPTER_FILE)).ok()?.metadata().get(BASE).cloned()
}

/// The template that the adapter in a folder keeps, where it keeps one.
///
/// # Errors
/// A weight file that cannot be read, and what is no template.
pub fn template_of(directory: &Path) -> Result<Option<Template>> {
    let path = directory.join(ADAPTER_FILE);
    let weights = Weights::open_file(&path)?;
    let parse = |text: &String| {
        let error = |message| Error::Weights { path, message: format!("the metadata's `{TEMPLATE}`: {message}") };
        Template::parse(text).map_err(error)
    };
    weights.metadata().get(TEMPLATE).map(parse).transpose()
}

/// What an adapter keeps beside what was trained, as metadata of its weight file, since PEFT warns of keys of a config that it does
/// not know.
#[derive(Clone, Copy, Default)]
pub struct Kept<'a> {
    /// A hash of the weights that it was made for.
    pub base: Option<&'a str>,
    /// What makes its texts.
    pub template: Option<&'a Template>,
    /// What a reward model scores by [1, H].
    pub score: Option<&'a Tensor>,
}

/// The modules that PEFT keeps with an adapter of a model that classifies, whatever it is called there.
pub(super) const HEADS: [&str; 2] = ["classifier", SCORE];

/// The names that PEFT gives to a score: of models that it wraps, and of those whose prompts it makes longer.
const SCORES: [&str; 2] = ["base_model.model.score.weight", "base_model.score.weight"];

/// The score [1, H] that the adapter in a folder keeps, where it is one of a reward model.
///
/// # Errors
/// A weight file that cannot be read, and a score of another shape or that is not finite.
pub(super) fn score_of(directory: &Path, decoder: &Decoder) -> Result<Option<Tensor>> {
    let mut tensors = Tensors::open(directory)?;
    let name = SCORES.into_iter().find(|name| tensors.weights.contains(name));
    name.map(|name| tensors.read(name, &[1, decoder.blueprint().hidden_size], decoder.device())).transpose()
}

/// Whether the adapter in a folder keeps a score.
pub fn scores(directory: &Path) -> bool {
    Weights::open_file(&directory.join(ADAPTER_FILE)).is_ok_and(|weights| SCORES.iter().any(|name| weights.contains(name)))
}

/// The keys of the metadata.
const BASE: &str = "base_weights";
pub(super) const TEMPLATE: &str = "prompt_template";

/// What an adapter's folder is written of.
pub(super) struct Files<'a> {
    /// Keys sorted.
    pub config: Value,
    /// Written as f32.
    pub tensors: BTreeMap<String, Tensor>,
    /// Written where there is none.
    pub card: Card<'a>,
    /// Beside them.
    pub kept: Kept<'a>,
}

/// Writes an adapter's folder.
pub(super) fn write(directory: &Path, files: Files) -> Result<()> {
    let Files { mut config, mut tensors, card, kept } = files;
    if let Some(score) = kept.score {
        let is_prompt = !config["num_virtual_tokens"].is_null();
        tensors.insert(SCORES[usize::from(is_prompt)].into(), score.detach());
        let saved = config["modules_to_save"].as_array().cloned().unwrap_or_default();
        config["modules_to_save"] = saved.into_iter().chain([SCORE.into()]).collect();
        config["task_type"] = "SEQ_CLS".into();
        config.sort_all_objects();
    }
    let info =
        |(name, tensor): (&String, &Tensor)| TensorInfo { name: name.clone(), dtype: DType::F32, shape: tensor.shape().to_vec() };
    let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let metadata = [("format", Some("pt")), (BASE, kept.base), (TEMPLATE, kept.template.map(Template::text))];
    let metadata = metadata.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?.to_string()))).collect();
    safetensors::save(&directory.join(ADAPTER_FILE), &infos, &metadata, |info| Ok(Cow::Owned(tensors[&info.name].to_bytes()?)))?;
    let path = directory.join(CARD_FILE);
    // Somebody may have written more on it.
    if !path.exists() {
        let asked = match kept.template.map(Template::fields) {
            None => "--prompt 'Once upon a time'".into(),
            Some(fields) => {
                let fields = fields.into_iter().map(|field| (field.clone(), "…".into())).collect();
                format!("--fields '{}'", Value::Object(fields))
            }
        };
        write_bytes(&path, card.text(&asked).as_bytes())?;
    }
    write_bytes(&directory.join(CONFIG_FILE), format!("{config:#}\n").as_bytes())
}

/// The tensors of an adapter's folder, of which none may be left over.
pub(super) struct Tensors {
    weights: Weights,
    taken: BTreeSet<String>,
}

impl Tensors {
    /// Those of the adapter in a folder.
    pub fn open(directory: &Path) -> Result<Tensors> {
        Ok(Tensors { weights: Weights::open_file(&directory.join(ADAPTER_FILE))?, taken: BTreeSet::new() })
    }

    /// What is wrong with them.
    pub fn error(&self, message: String) -> Error {
        Error::Weights { path: self.weights.path().to_path_buf(), message }
    }

    /// A tensor as f32, which must be of this shape and finite.
    pub fn read(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
        let view = self.weights.get(name)?;
        if view.shape != shape {
            let found = view.shape;
            let needs = format!("this model needs {shape:?}: an adapter of another base");
            return Err(self.error(format!("tensor `{name}` has shape {found:?}, and {needs}")));
        }
        let values = view.to_f32();
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(self.error(format!("tensor `{name}` is {} at element {at}: expected finite numbers", values[at]))),
            None => {
                self.taken.insert(name.into());
                Ok(device.tensor(&values, shape))
            }
        }
    }

    /// The elements of a tensor, where there is one of this name.
    pub fn read_optional(&mut self, name: &str) -> Result<Option<Vec<f32>>> {
        if !self.weights.names().any(|own| own == name) {
            return Ok(None);
        }
        self.taken.insert(name.into());
        Ok(Some(self.weights.get(name)?.to_f32()))
    }

    /// Checks that all were read.
    pub fn finish(self) -> Result<()> {
        match self.weights.names().find(|name| !self.taken.contains(*name) && !SCORES.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let message = format!("tensor `{name}` belongs to no adapted layer of this model: an adapter of another base");
                Err(self.error(message))
            }
        }
    }
}

/// Checks that a config is of this type, and that what it says is understood, since it may change what the model computes.
pub(super) fn check_keys(keys: &Object, peft_type: &str, is_understood: impl Fn(&str, &Value) -> bool) -> Result<()> {
    let expected = format!("\"{peft_type}\"");
    if keys.required("peft_type", &expected, keys.string("peft_type")?)? != peft_type {
        return Err(keys.error("peft_type", expected));
    }
    let is_off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    let is_head = |name: &Value| name.as_str().is_some_and(|name| HEADS.contains(&name));
    let are_heads = |value: &Value| value.as_array().is_some_and(|names| names.iter().all(is_head));
    let is_understood = |key: &str, value: &Value| is_understood(key, value) || (key == "modules_to_save" && are_heads(value));
    let is_known = |key: &str, value: &Value| OF_ALL.contains(&key) || is_understood(key, value);
    match keys.map.iter().find(|(key, value)| !is_known(key, value) && !is_off(value)) {
        None => Ok(()),
        Some((key, _)) => {
            Err(keys.error(key, "nothing: what it says is not understood here, and may change what the model computes"))
        }
    }
}

/// Keys that every config may have, and that change nothing of what is computed.
const OF_ALL: [&str; 7] =
    ["auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision", "task_type"];
