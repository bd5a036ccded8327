//! IA3 (Liu et al. 2022, arXiv:2205.05638): a layer's outputs are multiplied by a vector that is trained, or the inputs of a
//! feed-forward network's last layer. Both begin at one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Tensor, ops};

use super::files::{self, CONFIG_FILE, Files, PREFIX, Tensors, check_keys};
use super::settings::{Form, Setting};
use super::targets::{self, Targets};
use super::{Adapter, Entry, Kept, Method, Start, Tuned};
use crate::error::{Error, Result};
use crate::formats::json::Object;
use crate::formats::model_card::Card;
use crate::nn::{Linear, Tuning};
use crate::transformer::Decoder;
use crate::wording::sentence;

const PEFT_TYPE: &str = "IA3";

pub(super) const ENTRY: Entry = Entry {
    name: "ia3",
    about: "Vectors that multiply keys, values and the inside of feed-forward networks",
    // The paper's, in its appendix B.
    learning_rate: 3e-3,
    settings: &[Setting {
        name: "targets",
        help: targets::HELP,
        form: Form::Text { value: "NAMES", default: "", check: |text| Targets::parse(text).map(drop) },
    }],
    begin: |settings, Start { decoder, base, .. }| {
        let family = &decoder.blueprint().family.names;
        let targets = match settings.text("targets") {
            "" => Targets::Named(family.rescaled.iter().map(|name| name.to_string()).collect()),
            text => Targets::parse(text).map_err(|message| Error::Data { message })?,
        };
        targets.check(&paths(&decoder))?;
        let last = format!("{}.{}", family.feed_forward, family.down);
        let inputs = match &targets {
            // PEFT takes only names that are among the targets.
            Targets::Named(names) => names.iter().filter(|name| targets::is_or_ends_in(&last, name)).cloned().collect(),
            Targets::AllLinear | Targets::Pattern(_) => vec![last],
        };
        let config = Config { targets, inputs, base: Some(base.into()), task_type: Some("CAUSAL_LM".into()) };
        let method = Ia3::build(config, &decoder, |_, size| Ok(ops::full(decoder.device(), 1.0, [size])))?;
        Ok(Tuned::of(Arc::new(method), decoder))
    },
    adapter: Some(Adapter {
        peft_type: PEFT_TYPE,
        merges: true,
        open: |directory, decoder| {
            let config = Config::open(directory)?;
            let mut tensors = Tensors::open(directory)?;
            let method = Ia3::build(config, &decoder, |(path, of_inputs), size| {
                let shape = if of_inputs { [1, size] } else { [size, 1] };
                Ok(tensors.read(&tensor_name(path), &shape, decoder.device())?.reshape([size]))
            })?;
            tensors.finish()?;
            Ok(Tuned::of(Arc::new(method), decoder))
        },
    }),
};

/// An adapter's config.
#[derive(Clone)]
struct Config {
    targets: Targets,
    /// Ends of the names of those targets whose inputs are multiplied, and not their outputs.
    inputs: Vec<String>,
    base: Option<String>,
    task_type: Option<String>,
}

impl Config {
    fn open(directory: &Path) -> Result<Config> {
        let keys = Object::read(&directory.join(CONFIG_FILE))?;
        let understood = ["fan_in_fan_out", "feedforward_modules", "init_ia3_weights", "target_modules"];
        check_keys(&keys, PEFT_TYPE, |key, _| understood.contains(&key))?;
        Ok(Config {
            targets: Targets::read(&keys)?,
            inputs: match keys.get("feedforward_modules") {
                Some(Value::String(name)) => vec![name.clone()],
                _ => keys.strings("feedforward_modules")?.unwrap_or_default(),
            },
            base: keys.string("base_model_name_or_path")?,
            task_type: keys.string("task_type")?,
        })
    }

    fn to_json(&self, fan_in_fan_out: bool) -> Value {
        json!({
            "base_model_name_or_path": self.base,
            "fan_in_fan_out": fan_in_fan_out,
            "feedforward_modules": self.inputs,
            "inference_mode": true,
            "init_ia3_weights": true,
            "peft_type": PEFT_TYPE,
            "target_modules": self.targets.to_json(),
            "task_type": self.task_type,
        })
    }
}

/// The layers that can be tuned.
fn paths(decoder: &Decoder) -> Vec<&str> {
    decoder.linears().map(|layer| layer.path.as_str()).collect()
}

fn tensor_name(path: &str) -> String {
    format!("{PREFIX}{path}.ia3_l")
}

/// The vectors of a decoder's layers.
#[derive(Clone)]
struct Ia3 {
    config: Config,
    /// By the path of the layer.
    vectors: BTreeMap<String, Vector>,
}

#[derive(Clone)]
struct Vector {
    /// [inputs] or [outputs].
    values: Tensor,
    of_inputs: bool,
}

impl Ia3 {
    /// `values` is asked for the vector of a layer, by its path and whether it is of the inputs, and for so many numbers.
    fn build(config: Config, decoder: &Decoder, mut values: impl FnMut((&str, bool), usize) -> Result<Tensor>) -> Result<Ia3> {
        let mut vectors = BTreeMap::new();
        for Linear { path, weight, .. } in decoder.linears().filter(|layer| config.targets.include(&layer.path)) {
            let of_inputs = config.inputs.iter().any(|name| targets::is_or_ends_in(path, name));
            let values = values((path, of_inputs), weight.size(usize::from(of_inputs)))?;
            vectors.insert(path.clone(), Vector { values, of_inputs });
        }
        match vectors.is_empty() {
            true => Err(targets::no_layer(&paths(decoder), &format!("IA3 targets {} are", sentence(&config.targets)))),
            false => Ok(Ia3 { config, vectors }),
        }
    }

    /// The vector of a layer's inputs, or of its outputs.
    fn of(&self, layer: &Linear, of_inputs: bool) -> Option<&Tensor> {
        self.vectors.get(&layer.path).filter(|vector| vector.of_inputs == of_inputs).map(|vector| &vector.values)
    }

    /// The path of the layer that a parameter is of, and what multiplies it: [1, inputs], [outputs, 1], or [outputs] of a bias.
    fn factor(&self, name: &str) -> Option<(&str, Tensor)> {
        let (path, is_weight) = match name.strip_suffix(".weight") {
            Some(path) => (path, true),
            None => (name.strip_suffix(".bias")?, false),
        };
        let (path, Vector { values, of_inputs }) = self.vectors.get_key_value(path)?;
        let (values, size) = (values.detach(), values.size(0));
        match (is_weight, of_inputs) {
            (true, true) => Some((path, values.reshape([1, size]))),
            (true, false) => Some((path, values.reshape([size, 1]))),
            (false, false) => Some((path, values)),
            (false, true) => None,
        }
    }
}

impl Method for Ia3 {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        self.vectors.iter().map(|(path, vector)| (tensor_name(path), &vector.values)).collect()
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        let mut mapped = self.clone();
        mapped.vectors.values_mut().for_each(|vector| vector.values = map(&vector.values));
        Arc::new(mapped)
    }

    fn tuning(&self, _: Option<Philox>) -> Arc<dyn Tuning> {
        Arc::new(self.clone())
    }

    fn merged(&self, name: &str, parameter: &Tensor) -> Option<Tensor> {
        let (_, values) = self.factor(name)?;
        Some(ops::mul(&ops::cast(&parameter.detach(), DType::F32), &values))
    }

    fn unmerged(&self, name: &str, merged: &Tensor) -> Result<Option<Tensor>> {
        let Some((path, values)) = self.factor(name) else { return Ok(None) };
        match values.to_vec()?.iter().position(|value| *value == 0.0) {
            None => Ok(Some(ops::div(&ops::cast(&merged.detach(), DType::F32), &values))),
            Some(at) => {
                let message = format!("{path} was multiplied by 0 at {at}: what stood there before cannot be known");
                Err(Error::Data { message })
            }
        }
    }

    fn write(&self, decoder: &Decoder, kept: Kept, directory: &Path) -> Result<()> {
        let stored = |(path, Vector { values, of_inputs }): (&String, &Vector)| {
            let size = values.size(0);
            (tensor_name(path), values.detach().reshape(if *of_inputs { [1, size] } else { [size, 1] }))
        };
        let tensors = self.vectors.iter().map(stored).collect();
        let config = self.config.to_json(decoder.blueprint().family.names.transposed);
        let card = Card {
            base: self.config.base.as_deref(),
            method: "IA3",
            chosen: vec![("target modules", self.config.targets.to_string())],
        };
        files::write(directory, Files { config, tensors, card, kept })
    }
}

impl Tuning for Ia3 {
    fn enter(&self, layer: &Linear, x: &Tensor) -> Option<Tensor> {
        self.of(layer, true).map(|values| ops::mul(x, values))
    }

    fn leave(&self, layer: &Linear, _: &Tensor, y: &Tensor) -> Option<Tensor> {
        self.of(layer, false).map(|values| ops::mul(y, values))
    }
}
