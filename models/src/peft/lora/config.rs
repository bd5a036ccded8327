//! The config of a LoRA adapter in PEFT's layout, and the names of its tensors.

use std::collections::BTreeMap;
use std::path::Path;

use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::formats::json::Object;
use crate::peft::files::{CONFIG_FILE, HEADS, PREFIX, check_keys};
use crate::peft::targets::{Targets, is_or_ends_in, layer};

/// An adapter's `adapter_config.json`. Modules are named as in the model, `model.layers.0.self_attn.q_proj`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// The rank r: `lora_A` is [r, in], `lora_B` is [out, r].
    pub rank: usize,
    /// The update is scaled by `alpha / rank`, or `alpha / sqrt(rank)` with `rank_stabilised`.
    pub alpha: f64,
    /// The share of the adapter's input that training drops.
    pub dropout: f64,
    /// The modules that are adapted.
    pub targets: Targets,
    /// Modules that are not, although the targets name them: last parts of names.
    pub exclude: Vec<String>,
    /// The layers that are adapted; all if `None`.
    pub layers: Option<Vec<usize>>,
    /// rsLoRA, <https://arxiv.org/abs/2312.03732>.
    pub rank_stabilised: bool,
    /// DoRA, <https://arxiv.org/abs/2402.09353>: the rows of an updated weight keep a length of their own, which is trained.
    pub decomposed: bool,
    /// Ranks of single modules, by expressions that fit their names or the ends of these after a dot.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// How A begins; B begins at zero.
    pub init: Init,
    /// Modules of the base that are trained whole beside it, and kept with it: ends of names.
    pub saved: Vec<String>,
    /// Biases of the base that are trained beside it, and kept with it.
    pub bias: Bias,
    /// Whether the adapted weights are stored [in, out] instead of [out, in].
    pub fan_in_fan_out: bool,
    /// The model that the adapter was made for, as its config names it.
    pub base_model: Option<String>,
    /// What the adapted model does, such as `CAUSAL_LM`.
    pub task_type: Option<String>,
}

/// How a LoRA's A begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Uniform in +-1/sqrt(in): Kaiming's, with a = sqrt 5.
    Kaiming,
    /// Normal, with standard deviation 1/r.
    Gaussian,
}

/// Which of the base's biases are trained too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// All of them, those of norms included.
    All,
    /// Those of the updated layers.
    Own,
}

impl Bias {
    const ALL: [Bias; 3] = [Bias::None, Bias::All, Bias::Own];

    /// That of PEFT's name.
    pub fn named(name: &str) -> Option<Bias> {
        Bias::ALL.into_iter().find(|bias| bias.name() == name)
    }

    /// PEFT's name.
    pub fn name(self) -> &'static str {
        match self {
            Bias::None => "none",
            Bias::All => "all",
            Bias::Own => "lora_only",
        }
    }
}

/// The names of A and B of a linear layer, or of an embedding, in the weight file.
pub(super) fn tensor_names(module: &str, is_embedding: bool) -> [String; 2] {
    ["A", "B"].map(|letter| match is_embedding {
        false => format!("{PREFIX}{module}.lora_{letter}.weight"),
        true => format!("{PREFIX}{module}.lora_embedding_{letter}"),
    })
}

/// The name of DoRA's lengths of a linear layer's rows in the weight file.
pub(super) fn magnitude_name(module: &str) -> String {
    format!("{PREFIX}{module}.lora_magnitude_vector")
}

/// The name in the weight file of what an updated module has in the base: its `weight` or its `bias`.
pub(super) fn base_layer_name(module: &str, parameter: &str) -> String {
    format!("{PREFIX}{module}.base_layer.{parameter}")
}

/// The name in the weight file of a parameter of a module that is saved whole.
pub(super) fn saved_name(parameter: &str) -> String {
    format!("{PREFIX}{parameter}")
}

impl Default for LoraConfig {
    /// PEFT's defaults.
    fn default() -> LoraConfig {
        LoraConfig {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            targets: Targets::Named(vec!["q_proj".into(), "v_proj".into()]),
            exclude: Vec::new(),
            layers: None,
            rank_stabilised: false,
            decomposed: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            init: Init::Kaiming,
            saved: Vec::new(),
            bias: Bias::None,
            fan_in_fan_out: false,
            base_model: None,
            task_type: Some("CAUSAL_LM".into()),
        }
    }
}

impl LoraConfig {
    /// Reads `adapter_config.json` of an adapter's folder.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::Json`](crate::Error::Json) for the file; [`Error::Value`](crate::Error::Value)
    /// naming the key for a rank of 0, an adapter other than LoRA, a start that changed the base's weights too (PiSSA, OLoRA), and
    /// every key that says something that is not understood here: it may change what the model computes.
    pub fn open(directory: &Path) -> Result<LoraConfig> {
        LoraConfig::from_object(&Object::read(&directory.join(CONFIG_FILE))?)
    }

    /// Reads a parsed `adapter_config.json`; `path` is what errors name.
    ///
    /// # Errors
    /// As [`open`](LoraConfig::open).
    pub fn from_json(path: &Path, json: Value) -> Result<LoraConfig> {
        LoraConfig::from_object(&Object::new(path, json)?)
    }

    fn from_object(keys: &Object) -> Result<LoraConfig> {
        let defaults = LoraConfig::default();
        reject_unsupported(keys, defaults.to_json().as_object().expect("an object"))?;
        let share = |value: &Value| value.as_f64().filter(|share| (0.0..1.0).contains(share));
        let layer_list = |value: &Value| match value {
            Value::Array(list) => list.iter().map(as_index).collect(),
            one => as_index(one).map(|layer| vec![layer]),
        };
        Ok(LoraConfig {
            rank: keys.size("r")?.unwrap_or(defaults.rank),
            alpha: keys.positive("lora_alpha")?.unwrap_or(defaults.alpha),
            dropout: keys.optional("lora_dropout", "a number from 0 to below 1", share)?.unwrap_or(0.0),
            targets: Targets::read(keys)?,
            exclude: keys.strings("exclude_modules")?.unwrap_or_default(),
            layers: keys.optional("layers_to_transform", "a layer or a list of them", layer_list)?,
            rank_stabilised: keys.bool("use_rslora")?.unwrap_or(false),
            decomposed: keys.bool("use_dora")?.unwrap_or(false),
            rank_pattern: pattern(keys, "rank_pattern", Object::size)?,
            alpha_pattern: pattern(keys, "alpha_pattern", Object::positive)?,
            init: init(keys)?,
            saved: saved(keys)?,
            bias: bias(keys)?,
            fan_in_fan_out: keys.bool("fan_in_fan_out")?.unwrap_or(false),
            base_model: keys.string("base_model_name_or_path")?,
            task_type: keys.string("task_type")?,
        })
    }

    /// Whether this module is adapted; it is a linear layer of a block, or an embedding, which has to be named.
    pub fn adapts(&self, module: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| is_or_ends_in(module, name));
        let in_layers = match &self.layers {
            None => true,
            Some(layers) => layer(module).is_some_and(|layer| layers.contains(&layer)),
        };
        self.targets.include(module) && in_layers && !named(&self.exclude)
    }

    /// Whether this parameter belongs to a module that is trained whole.
    pub fn saves(&self, parameter: &str) -> bool {
        let modules = || parameter.match_indices('.').map(|(end, _)| &parameter[..end]);
        self.saved.iter().any(|name| modules().any(|module| module.ends_with(name.as_str())))
    }

    /// The rank of a module's adapter.
    pub fn rank_of(&self, module: &str) -> usize {
        of_pattern(&self.rank_pattern, module).unwrap_or(self.rank)
    }

    /// What a module's BA is multiplied with.
    pub fn scale_of(&self, module: &str) -> f64 {
        let rank = self.rank_of(module) as f64;
        let alpha = of_pattern(&self.alpha_pattern, module).unwrap_or(self.alpha);
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// `adapter_config.json`'s content, keys sorted.
    pub fn to_json(&self) -> Value {
        let init = match self.init {
            Init::Kaiming => json!(true),
            Init::Gaussian => json!("gaussian"),
        };
        let some = |names: &Vec<String>| if names.is_empty() { Value::Null } else { json!(names) };
        json!({
            "alpha_pattern": self.alpha_pattern,
            "base_model_name_or_path": self.base_model,
            "bias": self.bias.name(),
            "exclude_modules": some(&self.exclude),
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": init,
            "layers_to_transform": self.layers,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "modules_to_save": some(&self.saved),
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": self.rank_pattern,
            "target_modules": self.targets.to_json(),
            "task_type": self.task_type,
            "use_dora": self.decomposed,
            "use_rslora": self.rank_stabilised,
        })
    }
}

/// Keys whose values change nothing of what a trained adapter computes: notes, and options of starts and of training.
const WITHOUT_EFFECT: [&str; 8] = [
    "corda_config",
    "eva_config",
    "layers_pattern",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
];

fn reject_unsupported(keys: &Object, understood: &Map<String, Value>) -> Result<()> {
    check_keys(keys, "LORA", |key, _| understood.contains_key(key) || WITHOUT_EFFECT.contains(&key))
}

fn bias(keys: &Object) -> Result<Bias> {
    let named = |value: &Value| value.as_str().and_then(Bias::named);
    Ok(keys.optional("bias", "\"none\", \"all\" or \"lora_only\"", named)?.unwrap_or_default())
}

fn saved(keys: &Object) -> Result<Vec<String>> {
    let mut names = keys.strings("modules_to_save")?.unwrap_or_default();
    // The score of a reward model is read with any adapter.
    names.retain(|name| !HEADS.contains(&name.as_str()));
    match names.iter().any(String::is_empty) {
        true => Err(keys.error("modules_to_save", "names of modules")),
        false => Ok(names),
    }
}

fn init(keys: &Object) -> Result<Init> {
    // Trained weights replace a start, so all that leave the base as it is read the same.
    match keys.get("init_lora_weights") {
        Some(Value::String(name)) if name == "gaussian" => Ok(Init::Gaussian),
        None | Some(Value::Bool(_)) => Ok(Init::Kaiming),
        Some(Value::String(name)) if ["eva", "mica", "orthogonal"].contains(&name.as_str()) => Ok(Init::Kaiming),
        Some(_) => Err(keys.error(
            "init_lora_weights",
            "a start that leaves the base's weights as they are: this adapter belongs to a changed base; \
             save it with PEFT's path_initial_model_for_weight_conversion, which makes it a plain LoRA",
        )),
    }
}

fn pattern<T>(keys: &Object, key: &str, read: impl Fn(&Object, &str) -> Result<Option<T>>) -> Result<BTreeMap<String, T>> {
    let Some(pattern) = keys.object(key)? else {
        return Ok(BTreeMap::new());
    };
    let entry = |module: &String| {
        expression(module).map_err(|error| pattern.error(module, format!("a name or a regular expression as key: {error}")))?;
        let value = pattern.required(module, "a positive number", read(&pattern, module)?)?;
        Ok((module.clone(), value))
    };
    pattern.map.keys().map(entry).collect()
}

fn of_pattern<T: Copy>(pattern: &BTreeMap<String, T>, module: &str) -> Option<T> {
    let fits = |name: &str| expression(name).is_ok_and(|expression| expression.is_match(module).unwrap_or(false));
    let found = pattern.iter().find(|(name, _)| fits(name));
    found.map(|(_, value)| *value)
}

/// How PEFT takes the name of a pattern.
fn expression(name: &str) -> std::result::Result<Regex, Box<fancy_regex::Error>> {
    Regex::new(&format!(r"^(?:.*\.)?(?:{name})$")).map_err(Box::new)
}

fn as_index(value: &Value) -> Option<usize> {
    value.as_u64().map(|index| index as usize)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
