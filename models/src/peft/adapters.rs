//! Bottleneck adapters: a small network behind a sub-layer of every block, h + f(h W_down) W_up, behind attention and feed-forward both
//! (Houlsby et al. 2019, arXiv:1902.00751) or behind feed-forward alone (Pfeiffer et al. 2020, arXiv:2005.00247).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use wgtune_engine::random::Philox;
use wgtune_engine::{Tensor, ops};

use super::files::{self, CONFIG_FILE, Files, PREFIX, Tensors, check_keys};
use super::settings::{Form, Setting};
use super::{Adapter, Entry, Kept, Method, Start, Tuned};
use crate::error::Result;
use crate::formats::json::Object;
use crate::formats::model_card::Card;
use crate::nn::Tuning;
use crate::transformer::{Blueprint, Decoder};

/// PEFT has no such adapters: the config's `config` is AdapterHub's.
const PEFT_TYPE: &str = "BOTTLENECK";

pub(super) const ENTRY: Entry = Entry {
    name: "adapters",
    about: "Small networks behind the parts of every block",
    // AdapterHub's 1e-4 hardly moves in a hundred steps: benches/results/2026-11-28-methods.md.
    learning_rate: 1e-3,
    settings: &[
        Setting {
            name: "bottleneck",
            help: "Where the networks stand, and what their activation is",
            form: Form::OneOf(&[
                ("pfeiffer", "Behind feed-forward, with ReLU"),
                ("houlsby", "Behind attention and feed-forward, with SiLU"),
            ]),
        },
        Setting {
            name: "reduction-factor",
            help: "How much narrower than the model the networks are inside",
            form: Form::Whole { range: 1..=65_536, default: 16 },
        },
    ],
    begin: |settings, Start { decoder, base, seed, .. }| {
        let is_houlsby = settings.text("bottleneck") == "houlsby";
        let config = Config {
            behind: if is_houlsby { SUBLAYERS.to_vec() } else { vec![SUBLAYERS[1]] },
            activation: if is_houlsby { "swish" } else { "relu" },
            reduction_factor: settings.whole("reduction-factor") as f64,
            base: Some(base.into()),
        };
        let random = Philox::new(seed).stream(0x61_6461_7074);
        let device = decoder.device();
        let mut place = 0;
        let method = Adapters::build(config, decoder.blueprint(), |_, part, shape| {
            place += 1;
            let random = random.stream(place);
            Ok(match part {
                // AdapterHub's deviation; what is added is zero.
                Part::DownWeight => {
                    let count = shape.iter().product::<usize>() as u64;
                    let values: Vec<f32> = (0..count).map(|at| 0.02 * random.normal(at)).collect();
                    device.tensor(&values, [shape[0], shape[1]])
                }
                Part::UpWeight => device.zeros([shape[0], shape[1]]),
                Part::DownBias | Part::UpBias => device.zeros([shape[0]]),
            })
        })?;
        Ok(Tuned::of(Arc::new(method), decoder))
    },
    adapter: Some(Adapter {
        peft_type: PEFT_TYPE,
        merges: false,
        open: |directory, decoder| {
            let config = Config::open(directory)?;
            let mut tensors = Tensors::open(directory)?;
            let method = Adapters::build(config, decoder.blueprint(), |place, part, shape| {
                tensors.read(&place.tensor_name(part), shape, decoder.device())
            })?;
            tensors.finish()?;
            Ok(Tuned::of(Arc::new(method), decoder))
        },
    }),
};

/// What a network can stand behind: attention and feed-forward.
const SUBLAYERS: [Sublayer; 2] = [
    Sublayer { name: "self_attn", module: "attention_adapters", key: "mh_adapter" },
    Sublayer { name: "mlp", module: "output_adapters", key: "output_adapter" },
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sublayer {
    /// As a pass calls it.
    name: &'static str,
    /// AdapterHub's module behind it.
    module: &'static str,
    /// AdapterHub's key that says whether there is one.
    key: &'static str,
}

/// Where a network stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The block's path.
    block: String,
    sublayer: Sublayer,
}

#[derive(Clone, Copy)]
enum Part {
    DownWeight,
    DownBias,
    UpWeight,
    UpBias,
}

impl Place {
    fn tensor_name(&self, part: Part) -> String {
        let end = match part {
            Part::DownWeight => "adapter_down.0.weight",
            Part::DownBias => "adapter_down.0.bias",
            Part::UpWeight => "adapter_up.weight",
            Part::UpBias => "adapter_up.bias",
        };
        format!("{PREFIX}{}.{}.adapters.default.{end}", self.block, self.sublayer.module)
    }
}

/// An adapter's config.
#[derive(Clone)]
struct Config {
    behind: Vec<Sublayer>,
    /// AdapterHub's name of the activation.
    activation: &'static str,
    /// The model's width over the networks'.
    reduction_factor: f64,
    base: Option<String>,
}

type Activation = fn(&Tensor) -> Tensor;

/// AdapterHub's names of activations that are known here.
const ACTIVATIONS: [(&str, Activation); 5] =
    [("relu", ops::relu), ("swish", ops::silu), ("gelu", ops::gelu), ("gelu_new", ops::gelu_tanh), ("tanh", ops::tanh)];

impl Config {
    fn open(directory: &Path) -> Result<Config> {
        let keys = Object::read(&directory.join(CONFIG_FILE))?;
        check_keys(&keys, PEFT_TYPE, |key, _| key == "config")?;
        let own = keys.required("config", "AdapterHub's configuration", keys.object("config")?)?;
        let understood = |key: &str, value: &Value| match key {
            "mh_adapter" | "output_adapter" | "reduction_factor" | "non_linearity" => true,
            // How they began.
            "init_weights" => true,
            "architecture" => value.is_null(),
            "scaling" => value == 1.0 || value == 1,
            "dropout" => value == 0.0 || value == 0,
            _ => matches!(value, Value::Null | Value::Bool(false)),
        };
        if let Some((key, _)) = own.map.iter().find(|(key, value)| !understood(key, value)) {
            return Err(own.error(key, "nothing: what it says is not understood here, and may change what the model computes"));
        }
        let mut behind = Vec::new();
        for sublayer in SUBLAYERS {
            if own.bool(sublayer.key)?.unwrap_or(false) {
                behind.push(sublayer);
            }
        }
        if behind.is_empty() {
            return Err(own.error("output_adapter", "true, or `mh_adapter` true"));
        }
        let expected = ACTIVATIONS.map(|(name, _)| name).join(", ");
        let activation = own.required("non_linearity", &expected, own.string("non_linearity")?)?;
        let known = ACTIVATIONS.iter().find(|(name, _)| *name == activation);
        Ok(Config {
            behind,
            activation: known.ok_or_else(|| own.error("non_linearity", expected))?.0,
            reduction_factor: own.required("reduction_factor", "a positive number", own.positive("reduction_factor")?)?,
            base: keys.string("base_model_name_or_path")?,
        })
    }

    fn to_json(&self) -> Value {
        let is_behind = |sublayer: Sublayer| self.behind.contains(&sublayer);
        json!({
            "base_model_name_or_path": self.base,
            "config": {
                "mh_adapter": is_behind(SUBLAYERS[0]),
                "non_linearity": self.activation,
                "output_adapter": is_behind(SUBLAYERS[1]),
                "reduction_factor": self.reduction_factor,
            },
            "peft_type": PEFT_TYPE,
        })
    }
}

/// The networks of a decoder.
#[derive(Clone)]
struct Adapters {
    config: Config,
    networks: BTreeMap<Place, Network>,
}

#[derive(Clone)]
struct Network {
    /// [inside, H] and [inside].
    down: [Tensor; 2],
    /// [H, inside] and [H].
    up: [Tensor; 2],
}

impl Adapters {
    fn build(
        config: Config,
        blueprint: &Blueprint,
        mut source: impl FnMut(&Place, Part, &[usize]) -> Result<Tensor>,
    ) -> Result<Adapters> {
        let width = blueprint.hidden_size;
        let inside = ((width as f64 / config.reduction_factor) as usize).max(1);
        let mut networks = BTreeMap::new();
        for layer in 0..blueprint.num_hidden_layers {
            for sublayer in &config.behind {
                let place = Place { block: format!("{}.{layer}", blueprint.family.names.blocks), sublayer: *sublayer };
                let down = [source(&place, Part::DownWeight, &[inside, width])?, source(&place, Part::DownBias, &[inside])?];
                let up = [source(&place, Part::UpWeight, &[width, inside])?, source(&place, Part::UpBias, &[width])?];
                networks.insert(place, Network { down, up });
            }
        }
        Ok(Adapters { config, networks })
    }
}

impl Network {
    fn parts(&self) -> [(Part, &Tensor); 4] {
        let Network { down: [down_weight, down_bias], up: [up_weight, up_bias] } = self;
        [(Part::DownWeight, down_weight), (Part::DownBias, down_bias), (Part::UpWeight, up_weight), (Part::UpBias, up_bias)]
    }
}

impl Method for Adapters {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        let of = |(place, network): (&Place, _)| {
            let network: &Network = network;
            network.parts().map(|(part, tensor)| (place.tensor_name(part), tensor))
        };
        self.networks.iter().flat_map(of).collect()
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        let mut mapped = self.clone();
        for network in mapped.networks.values_mut() {
            network.down = network.down.each_ref().map(map);
            network.up = network.up.each_ref().map(map);
        }
        Arc::new(mapped)
    }

    fn tuning(&self, _: Option<Philox>) -> Arc<dyn Tuning> {
        Arc::new(self.clone())
    }

    fn write(&self, _: &Decoder, kept: Kept, directory: &Path) -> Result<()> {
        let tensors = self.parameters().into_iter().map(|(name, tensor)| (name, tensor.clone())).collect();
        let behind = self.config.behind.iter().map(|sublayer| sublayer.name).collect::<Vec<_>>().join(", ");
        let chosen = vec![("behind", behind), ("reduction factor", self.config.reduction_factor.to_string())];
        let card = Card { base: self.config.base.as_deref(), method: "Bottleneck", chosen };
        files::write(directory, Files { config: self.config.to_json(), tensors, card, kept })
    }
}

impl Tuning for Adapters {
    fn sublayer(&self, path: &str, sublayer: &str, y: &Tensor) -> Option<Tensor> {
        let &sublayer = self.config.behind.iter().find(|behind| behind.name == sublayer)?;
        let Network { down, up } = &self.networks[&Place { block: path.into(), sublayer }];
        let (_, activation) = ACTIVATIONS.iter().find(|(name, _)| *name == self.config.activation).expect("a known one");
        let inside = ops::linear_with(y, &down[0], &ops::Epilogue { bias: Some(&down[1]), ..Default::default() });
        let epilogue = ops::Epilogue { bias: Some(&up[1]), residual: Some(y), ..Default::default() };
        Some(ops::linear_with(&activation(&inside), &up[0], &epilogue))
    }
}
