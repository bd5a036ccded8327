//! LoRA adapters in the layout of PEFT: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! LoRA: Hu et al., 2021, <https://arxiv.org/abs/2106.09685>.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::files::write_bytes;
use super::json::Object;
use crate::error::Result;

/// The name of an adapter's weight file.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The name of an adapter's config.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// What PEFT puts before a model's own tensor names.
const PREFIX: &str = "base_model.model.";

/// An adapter's `adapter_config.json`. Modules are named as in the model, `model.layers.0.self_attn.q_proj`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
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
    /// Ranks of single modules, by the last parts of their names.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules, by the last parts of their names.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// How A begins; B begins at zero.
    pub init: Init,
    /// Whether the adapted weights are stored [in, out] instead of [out, in].
    pub fan_in_fan_out: bool,
    /// The model that the adapter was made for, as its config names it.
    pub base_model: Option<String>,
    /// What the adapted model does, such as `CAUSAL_LM`.
    pub task_type: Option<String>,
}

/// Which modules an adapter adapts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer but the output projection.
    AllLinear,
    /// Modules whose name is one of these or ends in one of them, after a dot.
    Named(Vec<String>),
}

/// How a LoRA's A begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Uniform in +-1/sqrt(in): Kaiming's, with a = sqrt 5.
    Kaiming,
    /// Normal, with standard deviation 1/r.
    Gaussian,
}

/// One of the two matrices of a LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// A [r, in].
    A,
    /// B [out, r].
    B,
}

/// The name in an adapter's weight file of a module's factor.
pub fn tensor_name(module: &str, factor: Factor) -> String {
    let letter = match factor {
        Factor::A => 'A',
        Factor::B => 'B',
    };
    format!("{PREFIX}{module}.lora_{letter}.weight")
}

/// The module and factor that a tensor of an adapter's weight file is; `None` for any other name.
pub fn parse_tensor_name(name: &str) -> Option<(&str, Factor)> {
    let name = name.strip_prefix(PREFIX)?;
    let a = name.strip_suffix(".lora_A.weight").map(|module| (module, Factor::A));
    a.or_else(|| name.strip_suffix(".lora_B.weight").map(|module| (module, Factor::B)))
}

impl std::fmt::Display for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Targets::AllLinear => f.write_str("all-linear"),
            Targets::Named(names) => f.write_str(&names.join(", ")),
        }
    }
}

impl Default for AdapterConfig {
    /// PEFT's defaults.
    fn default() -> AdapterConfig {
        AdapterConfig {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            targets: Targets::Named(vec!["q_proj".into(), "v_proj".into()]),
            exclude: Vec::new(),
            layers: None,
            rank_stabilised: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            init: Init::Kaiming,
            fan_in_fan_out: false,
            base_model: None,
            task_type: Some("CAUSAL_LM".into()),
        }
    }
}

impl AdapterConfig {
    /// Reads `adapter_config.json` of an adapter's folder. Unknown keys are ignored, as PEFT asks of readers.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::Json`](crate::Error::Json) for the file; [`Error::Value`](crate::Error::Value) naming the key for a rank of 0, an
    /// adapter other than LoRA, and what would change its meaning but is not supported: DoRA, trained
    /// biases, `modules_to_save`.
    pub fn open(directory: &Path) -> Result<AdapterConfig> {
        AdapterConfig::from_object(&Object::read(&directory.join(CONFIG_FILE))?)
    }

    /// Reads a parsed `adapter_config.json`; `path` is what errors name.
    ///
    /// # Errors
    /// As [`open`](AdapterConfig::open).
    pub fn from_json(path: &Path, json: Value) -> Result<AdapterConfig> {
        AdapterConfig::from_object(&Object::new(path, json)?)
    }

    fn from_object(keys: &Object) -> Result<AdapterConfig> {
        reject_unsupported(keys)?;
        let share = |value: &Value| value.as_f64().filter(|share| (0.0..1.0).contains(share));
        let layer_list = |value: &Value| match value {
            Value::Array(list) => list.iter().map(as_index).collect(),
            one => as_index(one).map(|layer| vec![layer]),
        };
        let defaults = AdapterConfig::default();
        Ok(AdapterConfig {
            rank: keys.size("r")?.unwrap_or(defaults.rank),
            alpha: keys.positive("lora_alpha")?.unwrap_or(defaults.alpha),
            dropout: keys.optional("lora_dropout", "a number from 0 to below 1", share)?.unwrap_or(0.0),
            targets: targets(keys)?,
            exclude: keys.strings("exclude_modules")?.unwrap_or_default(),
            layers: keys.optional("layers_to_transform", "a layer or a list of them", layer_list)?,
            rank_stabilised: keys.bool("use_rslora")?.unwrap_or(false),
            rank_pattern: pattern(keys, "rank_pattern", Object::size)?,
            alpha_pattern: pattern(keys, "alpha_pattern", Object::positive)?,
            init: init(keys)?,
            fan_in_fan_out: keys.bool("fan_in_fan_out")?.unwrap_or(false),
            base_model: keys.string("base_model_name_or_path")?,
            task_type: keys.string("task_type")?,
        })
    }

    /// Whether this module, a linear layer, is adapted.
    pub fn adapts(&self, module: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| is_or_ends_in(module, name));
        let targeted = match &self.targets {
            Targets::AllLinear => !is_or_ends_in(module, "lm_head"),
            Targets::Named(names) => named(names),
        };
        let in_layers = match &self.layers {
            None => true,
            Some(layers) => layer(module).is_some_and(|layer| layers.contains(&layer)),
        };
        targeted && in_layers && !named(&self.exclude)
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
        let targets = match &self.targets {
            Targets::AllLinear => json!("all-linear"),
            Targets::Named(names) => json!(names),
        };
        let exclude = Some(&self.exclude).filter(|names| !names.is_empty());
        json!({
            "alpha_pattern": self.alpha_pattern,
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "exclude_modules": exclude,
            "fan_in_fan_out": self.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": init,
            "layers_to_transform": self.layers,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": self.rank_pattern,
            "target_modules": targets,
            "task_type": self.task_type,
            "use_dora": false,
            "use_rslora": self.rank_stabilised,
        })
    }

    /// Writes `adapter_config.json` into an adapter's folder.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn save(&self, directory: &Path) -> Result<()> {
        let text = format!("{:#}\n", self.to_json());
        write_bytes(&directory.join(CONFIG_FILE), text.as_bytes())
    }
}

fn reject_unsupported(keys: &Object) -> Result<()> {
    let peft_type = keys.string("peft_type")?;
    if keys.required("peft_type", "\"LORA\"", peft_type)? != "LORA" {
        return Err(keys.error("peft_type", "\"LORA\""));
    }
    let unsupported = [
        ("use_dora", json!(false)),
        ("lora_bias", json!(false)),
        ("bias", json!("none")),
        ("modules_to_save", json!([])),
        ("trainable_token_indices", json!([])),
        ("layer_replication", json!([])),
        ("target_parameters", json!([])),
    ];
    for (key, accepted) in unsupported {
        if keys.get(key).is_some_and(|value| *value != accepted) {
            let expected = format!("{accepted}: nothing else is supported");
            return Err(keys.error(key, expected));
        }
    }
    Ok(())
}

fn targets(keys: &Object) -> Result<Targets> {
    let expected = "a list of module names, or \"all-linear\"";
    match keys.get("target_modules") {
        None => Err(keys.error("target_modules", expected)),
        Some(Value::String(all)) if all == "all-linear" => Ok(Targets::AllLinear),
        // PEFT takes any other string for a regular expression; a plain name is one that needs none.
        Some(Value::String(name)) if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            Ok(Targets::Named(vec![name.clone()]))
        }
        Some(Value::String(_)) => Err(keys.error("target_modules", expected)),
        Some(_) => match keys.strings("target_modules")? {
            Some(names) if !names.is_empty() => Ok(Targets::Named(names)),
            _ => Err(keys.error("target_modules", expected)),
        },
    }
}

fn init(keys: &Object) -> Result<Init> {
    match keys.get("init_lora_weights") {
        // Trained weights replace it, so any other start (PiSSA, LoftQ, false) reads the same.
        Some(Value::String(name)) if name == "gaussian" => Ok(Init::Gaussian),
        _ => Ok(Init::Kaiming),
    }
}

fn pattern<T>(keys: &Object, key: &str, read: impl Fn(&Object, &str) -> Result<Option<T>>) -> Result<BTreeMap<String, T>> {
    let Some(pattern) = keys.object(key)? else {
        return Ok(BTreeMap::new());
    };
    let entry = |module: &String| {
        let value = pattern.required(module, "a positive number", read(&pattern, module)?)?;
        Ok((module.clone(), value))
    };
    pattern.map.keys().map(entry).collect()
}

fn of_pattern<T: Copy>(pattern: &BTreeMap<String, T>, module: &str) -> Option<T> {
    let found = pattern.iter().find(|(name, _)| is_or_ends_in(module, name));
    found.map(|(_, value)| *value)
}

fn is_or_ends_in(module: &str, name: &str) -> bool {
    match module.strip_suffix(name) {
        Some(before) => before.is_empty() || before.ends_with('.'),
        None => false,
    }
}

/// The first number among the parts of a module's name.
fn layer(module: &str) -> Option<usize> {
    module.split('.').find_map(|part| part.parse().ok())
}

fn as_index(value: &Value) -> Option<usize> {
    value.as_u64().map(|index| index as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q0: &str = "model.layers.0.self_attn.q_proj";
    const DOWN3: &str = "model.layers.3.mlp.down_proj";

    fn read(json: Value) -> Result<AdapterConfig> {
        AdapterConfig::from_json(Path::new(CONFIG_FILE), json)
    }

    #[test]
    fn names_go_both_ways() {
        let name = tensor_name(Q0, Factor::B);
        assert_eq!(name, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
        assert_eq!(parse_tensor_name(&name), Some((Q0, Factor::B)));
        assert_eq!(parse_tensor_name(Q0), None);
        assert_eq!(parse_tensor_name(&format!("{PREFIX}{Q0}.lora_magnitude_vector")), None);
    }

    #[test]
    fn a_saved_adapter_reads_back_the_same_with_sorted_keys() {
        let config = AdapterConfig {
            rank: 4,
            alpha: 32.0,
            dropout: 0.25,
            targets: Targets::AllLinear,
            exclude: vec!["down_proj".into()],
            layers: Some(vec![0, 2]),
            rank_stabilised: true,
            rank_pattern: BTreeMap::from([("q_proj".into(), 16)]),
            alpha_pattern: BTreeMap::from([("q_proj".into(), 64.0)]),
            init: Init::Gaussian,
            base_model: Some("some/model".into()),
            ..AdapterConfig::default()
        };
        let folder = tempfile::tempdir().unwrap();
        config.save(folder.path()).unwrap();
        assert_eq!(AdapterConfig::open(folder.path()).unwrap(), config);
        let json = config.to_json();
        assert!(json.as_object().unwrap().keys().is_sorted());
    }

    #[test]
    fn targets_layers_and_exclusions_choose_modules() {
        let adapts = |changes: Value, module: &str| {
            let mut json = json!({"peft_type": "LORA", "target_modules": "all-linear"});
            json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            read(json).unwrap().adapts(module)
        };
        assert!(adapts(json!({}), Q0) && adapts(json!({}), DOWN3) && !adapts(json!({}), "lm_head"));
        let named = json!({"target_modules": ["q_proj", "v_proj"]});
        assert!(adapts(named.clone(), Q0) && !adapts(named, DOWN3));
        assert!(!adapts(json!({"target_modules": ["proj"]}), Q0));
        assert!(adapts(json!({"target_modules": [Q0]}), Q0));
        assert!(!adapts(json!({"exclude_modules": ["q_proj"]}), Q0));
        let layers = json!({"layers_to_transform": [3]});
        assert!(!adapts(layers.clone(), Q0) && adapts(layers, DOWN3));
        assert!(adapts(json!({"layers_to_transform": 0}), Q0));
    }

    #[test]
    fn scales_follow_patterns_and_rslora() {
        let config = read(json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "q_proj",
            "rank_pattern": {"q_proj": 16}, "alpha_pattern": {"down_proj": 2}}))
        .unwrap();
        assert_eq!((config.rank_of(Q0), config.rank_of(DOWN3)), (16, 4));
        assert_eq!((config.scale_of(Q0), config.scale_of(DOWN3)), (0.5, 0.5));
        let stabilised = AdapterConfig { rank_stabilised: true, ..config };
        assert_eq!((stabilised.scale_of(Q0), stabilised.scale_of(DOWN3)), (2.0, 1.0));
    }

    #[test]
    fn what_cannot_be_honoured_is_an_error_that_names_the_key() {
        let cases = [
            (json!({"r": 0}), "`r` is 0"),
            (json!({"rank_pattern": {"q_proj": 0}}), "`rank_pattern.q_proj` is 0"),
            (json!({"peft_type": "IA3"}), "`peft_type` is \"IA3\""),
            (json!({"peft_type": null}), "`peft_type` is null"),
            (json!({"use_dora": true}), "`use_dora` is true"),
            (json!({"bias": "all"}), "`bias` is \"all\""),
            (json!({"modules_to_save": ["lm_head"]}), "`modules_to_save` is [\"lm_head\"]"),
            (json!({"target_modules": []}), "`target_modules` is []"),
            (json!({"target_modules": ".*q_proj"}), "`target_modules` is \".*q_proj\""),
            (json!({"lora_dropout": 1.0}), "`lora_dropout` is 1.0"),
        ];
        for (changes, expected) in cases {
            let mut json = json!({"peft_type": "LORA", "target_modules": ["q_proj"], "unknown": 1});
            json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} should contain {expected}");
        }
    }
}
