//! P-tuning (Liu et al. 2021, arXiv:2103.10385): virtual tokens before a text, whose vectors a small network writes. The network alone
//! is trained; what it writes in the end is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use wgtune_engine::random::Philox;
use wgtune_engine::{Tensor, ops};

use super::encoder::{HIDDEN_SIZE, Layer, Lstm};
use super::files::{self, CONFIG_FILE, Files};
use super::settings::{Form, Setting, Settings};
use super::virtual_tokens::{self, TABLE, VirtualTokens};
use super::{Adapter, Entry, Kept, Method, Start, Tuned};
use crate::error::Result;
use crate::formats::json::Object;
use crate::formats::model_card::Card;
use crate::nn::Tuning;
use crate::transformer::Decoder;

const PEFT_TYPE: &str = "P_TUNING";

pub(super) const ENTRY: Entry = Entry {
    name: "p-tuning",
    about: "A network that writes the vectors of virtual tokens before a text",
    learning_rate: 1e-3,
    settings: &[
        virtual_tokens::COUNT,
        Setting {
            name: "encoder",
            help: "The network that writes virtual tokens",
            form: Form::OneOf(&[("mlp", "Three linear layers"), ("lstm", "Two layers of an LSTM that reads both ways")]),
        },
        HIDDEN_SIZE,
    ],
    begin: |settings, start| Ok(Tuned::of(Arc::new(PTuning::begin(settings, &start)), start.decoder)),
    adapter: Some(Adapter {
        peft_type: PEFT_TYPE,
        merges: false,
        open: |directory, decoder| Ok(Tuned::of(Arc::new(PTuning::open(directory, &decoder)?), decoder)),
    }),
};

#[derive(Clone)]
struct PTuning {
    shared: VirtualTokens,
    writer: Writer,
}

/// What virtual tokens come from.
#[derive(Clone)]
enum Writer {
    /// Themselves [V, H], as they were kept, and what their config says of the network that wrote them. Trained further, they are so
    /// without one.
    Table(Tensor, Map<String, Value>),
    /// A network over an embedding [V, H].
    Network { embedding: Tensor, network: Network, hidden_size: usize },
}

#[derive(Clone)]
enum Network {
    /// Linear, ReLU, linear, ReLU, linear.
    Mlp(Vec<Layer>),
    /// An LSTM, linear, ReLU, linear.
    Lstm(Box<Lstm>, Vec<Layer>),
}

impl Network {
    fn new(kind: &str, hidden: usize, width: usize, random: Philox, device: &wgtune_engine::Device) -> Network {
        let layer = |name: &str, size, stream| Layer::new(name, size, random.stream(stream), device);
        match kind {
            "lstm" => Network::Lstm(
                Box::new(Lstm::new([hidden, width], random.stream(0), device)),
                vec![layer("mlp_head.0", [2 * hidden, 2 * hidden], 1), layer("mlp_head.2", [width, 2 * hidden], 2)],
            ),
            _ => Network::Mlp(vec![
                layer("mlp_head.0", [hidden, width], 0),
                layer("mlp_head.2", [hidden, hidden], 1),
                layer("mlp_head.4", [width, hidden], 2),
            ]),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let joined = |x: Tensor, layer: &Layer| layer.forward(&ops::relu(&x));
        match self {
            Network::Mlp(layers) => layers[1..].iter().fold(layers[0].forward(x), joined),
            Network::Lstm(lstm, layers) => layers[1..].iter().fold(layers[0].forward(&lstm.forward(x)), joined),
        }
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        match self {
            Network::Mlp(layers) => layers.iter().flat_map(Layer::parameters).collect(),
            Network::Lstm(lstm, layers) => {
                lstm.parameters().into_iter().chain(layers.iter().flat_map(Layer::parameters)).collect()
            }
        }
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Network {
        match self {
            Network::Mlp(layers) => Network::Mlp(layers.iter().map(|layer| layer.mapped(map)).collect()),
            Network::Lstm(lstm, layers) => {
                Network::Lstm(Box::new(lstm.mapped(map)), layers.iter().map(|layer| layer.mapped(map)).collect())
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Network::Mlp(_) => "MLP",
            Network::Lstm(..) => "LSTM",
        }
    }
}

impl PTuning {
    fn begin(settings: &Settings, start: &Start) -> PTuning {
        let (blueprint, device) = (start.decoder.blueprint(), start.decoder.device());
        let (width, hidden_size) = (blueprint.hidden_size, settings.whole(HIDDEN_SIZE.name));
        let shared = VirtualTokens::chosen(settings, blueprint, width, blueprint.num_attention_heads, start.base);
        let random = Philox::new(start.seed).stream(0x70_7475_6e65);
        let values: Vec<f32> = (0..(shared.count * width) as u64).map(|place| random.normal(place)).collect();
        let embedding = device.tensor(&values, [shared.count, width]);
        let network = Network::new(settings.text("encoder"), hidden_size, width, random.stream(1), device);
        PTuning { shared, writer: Writer::Network { embedding, network, hidden_size } }
    }

    fn open(directory: &Path, decoder: &Decoder) -> Result<PTuning> {
        let blueprint = decoder.blueprint();
        // The network is not kept.
        let own = ["encoder_dropout", "encoder_hidden_size", "encoder_num_layers", "encoder_reparameterization_type"];
        let width = blueprint.hidden_size;
        let heads = blueprint.num_attention_heads;
        let (shared, table) = VirtualTokens::open(directory, decoder, PEFT_TYPE, &own, [width, heads], width)?;
        let keys = Object::read(&directory.join(CONFIG_FILE))?.map;
        let network = keys.into_iter().filter(|(key, _)| own.contains(&key.as_str())).collect();
        Ok(PTuning { shared, writer: Writer::Table(table, network) })
    }

    fn table(&self) -> Tensor {
        match &self.writer {
            Writer::Table(table, _) => table.clone(),
            Writer::Network { embedding, network, .. } => network.forward(embedding),
        }
    }
}

impl Method for PTuning {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        match &self.writer {
            Writer::Table(table, _) => vec![(TABLE.into(), table)],
            Writer::Network { embedding, network, .. } => {
                let embedding = [("prompt_encoder.embedding.weight".to_string(), embedding)];
                embedding.into_iter().chain(network.parameters()).collect()
            }
        }
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        let writer = match &self.writer {
            Writer::Table(table, network) => Writer::Table(map(table), network.clone()),
            Writer::Network { embedding, network, hidden_size } => {
                Writer::Network { embedding: map(embedding), network: network.mapped(map), hidden_size: *hidden_size }
            }
        };
        Arc::new(PTuning { writer, ..self.clone() })
    }

    fn opening(&self) -> usize {
        self.shared.count
    }

    fn tuning(&self, _: Option<Philox>) -> Arc<dyn Tuning> {
        Arc::new(Written { table: self.table() })
    }

    fn write(&self, _: &Decoder, kept: Kept, directory: &Path) -> Result<()> {
        const KIND: &str = "encoder_reparameterization_type";
        let own = match &self.writer {
            Writer::Table(_, network) => network.clone().into(),
            Writer::Network { network, hidden_size, .. } => json!({"encoder_hidden_size": hidden_size, KIND: network.name()}),
        };
        let kind = own[KIND].as_str().unwrap_or("MLP").to_string();
        let chosen = vec![("virtual tokens", self.shared.count.to_string()), ("network", kind)];
        let card = Card { base: self.shared.base(), method: "P-tuning", chosen };
        let tensors = BTreeMap::from([(TABLE.into(), self.table().detach())]);
        files::write(directory, Files { config: self.shared.to_json(PEFT_TYPE, own), tensors, card, kept })
    }
}

/// The virtual tokens of a pass.
struct Written {
    /// [V, H].
    table: Tensor,
}

impl Tuning for Written {
    fn virtual_tokens(&self) -> Option<Tensor> {
        Some(self.table.clone())
    }
}
