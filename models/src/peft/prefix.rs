//! Prefix tuning (Li and Liang 2021, arXiv:2101.00190): keys and values that every layer finds before those of a text are trained. They
//! may begin as those of a text that the model has read (Eyuboglu et al. 2025, arXiv:2506.06266, call the result a cartridge).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use wgtune_engine::random::Philox;
use wgtune_engine::{Tensor, ops};

use super::encoder::Layer;
use super::files::{self, Files};
use super::settings::{Form, Setting, Settings};
use super::virtual_tokens::{self, TABLE, VirtualTokens};
use super::{Adapter, Entry, Kept, Method, Start, Tuned};
use crate::error::{Error, Result};
use crate::formats::model_card::Card;
use crate::nn::Tuning;
use crate::transformer::{Cache, Decoder, Forward};

const PEFT_TYPE: &str = "PREFIX_TUNING";

pub(super) const ENTRY: Entry = Entry {
    name: "prefix",
    about: "Keys and values of every layer before those of a text",
    learning_rate: 1e-2,
    settings: &[
        virtual_tokens::COUNT,
        virtual_tokens::TEXT,
        Setting {
            name: "prefix-projection",
            help: "Train a projection that writes keys and values, of which only these are kept",
            form: Form::Switch,
        },
        super::encoder::HIDDEN_SIZE,
    ],
    begin: |settings, start| Ok(Tuned::of(Arc::new(Prefix::begin(settings, &start)?), start.decoder)),
    adapter: Some(Adapter {
        peft_type: PEFT_TYPE,
        merges: false,
        open: |directory, decoder| Ok(Tuned::of(Arc::new(Prefix::open(directory, &decoder)?), decoder)),
    }),
};

/// Keys and values of all layers.
#[derive(Clone)]
struct Prefix {
    shared: VirtualTokens,
    /// KV and D.
    heads: [usize; 2],
    layers: usize,
    content: Content,
}

/// What they come from. A row has, layer by layer, the keys of all heads and then the values.
#[derive(Clone)]
enum Content {
    /// Themselves: [V, 2 L KV D].
    Table(Tensor),
    /// A text that was read, whose first token [1, 2 L KV D] stays as it is, since it is what attention rests on (Xiao et al. 2023,
    /// arXiv:2309.17453); the others [V - 1, 2 L KV D] are trained.
    Text { first: Tensor, rest: Tensor },
    /// A projection of an embedding [V, KV D]: linear, tanh, linear.
    Projection { embedding: Tensor, layers: Box<[Layer; 2]> },
}

impl Content {
    fn table(&self) -> Tensor {
        match self {
            Content::Table(table) => table.clone(),
            Content::Text { first, rest } => ops::cat(&[first, rest], 0),
            Content::Projection { embedding, layers } => {
                let [inside, outside] = &**layers;
                outside.forward(&ops::tanh(&inside.forward(embedding)))
            }
        }
    }
}

impl Prefix {
    fn begin(settings: &Settings, start: &Start) -> Result<Prefix> {
        let blueprint = start.decoder.blueprint();
        let heads = [blueprint.num_key_value_heads, blueprint.head_dim];
        let width = heads[0] * heads[1];
        let mut shared = VirtualTokens::chosen(settings, blueprint, width, heads[0], start.base);
        let (layers, device) = (blueprint.num_hidden_layers, start.decoder.device());
        let random = Philox::new(start.seed).stream(0x70_7265_6669);
        let drawn = |random: Philox, shape: [usize; 2], deviation: f32| {
            let values: Vec<f32> = (0..(shape[0] * shape[1]) as u64).map(|place| deviation * random.normal(place)).collect();
            device.tensor(&values, shape)
        };
        let content = match settings.text(virtual_tokens::TEXT.name) {
            "" if settings.is_on("prefix-projection") => {
                let inside = settings.whole(super::encoder::HIDDEN_SIZE.name);
                Content::Projection {
                    embedding: drawn(random, [shared.count, width], 1.0),
                    layers: Box::new([
                        Layer::new("transform.0", [inside, width], random.stream(1), device),
                        Layer::new("transform.2", [2 * layers * width, inside], random.stream(2), device),
                    ]),
                }
            }
            "" => Content::Table(drawn(random, [shared.count, 2 * layers * width], DEVIATION)),
            text => {
                let mut ids = (start.encode)(text)?;
                ids.truncate(shared.count);
                if ids.len() < 2 {
                    let message = "a prefix of a text's first token, which stays as it is: expected at least two tokens";
                    return Err(Error::Data { message: message.into() });
                }
                shared.count = ids.len();
                let table = read(&start.decoder, &ids, layers, width)?;
                let [first, rest] = [0..1, 1..ids.len()].map(|rows| ops::copy(&table.slice(0, rows)));
                Content::Text { first, rest }
            }
        };
        Ok(Prefix { shared, heads, layers, content })
    }

    fn open(directory: &Path, decoder: &Decoder) -> Result<Prefix> {
        let blueprint = decoder.blueprint();
        let heads = [blueprint.num_key_value_heads, blueprint.head_dim];
        let (width, layers) = (heads[0] * heads[1], blueprint.num_hidden_layers);
        // A projection is not kept.
        let own = ["encoder_hidden_size", "prefix_projection"];
        let (shared, table) = VirtualTokens::open(directory, decoder, PEFT_TYPE, &own, [width, heads[0]], 2 * layers * width)?;
        Ok(Prefix { shared, heads, layers, content: Content::Table(table) })
    }
}

/// The deviation that random keys and values begin with: they are to weigh little in the attention of the first steps.
const DEVIATION: f32 = 0.02;

/// What the bare model makes of a text: keys and values [V, 2 L KV D].
fn read(decoder: &Decoder, ids: &[u32], layers: usize, width: usize) -> Result<Tensor> {
    let forward = Forward::default();
    let decoder = decoder.detach();
    let mut cache = Cache::new(decoder.blueprint(), decoder.device());
    let mut row = cache.row(&*forward.tuning);
    let input = cache.input(&mut [(&mut row, ids)], &*forward.tuning);
    decoder.hidden(&input, &forward);
    let parts: Vec<Tensor> = (0..layers).flat_map(|layer| cache.content(&row, layer)).collect();
    let flat: Vec<Tensor> = parts.iter().map(|part| part.reshape([ids.len(), width])).collect();
    Ok(ops::cat(&flat.iter().collect::<Vec<_>>(), 1))
}

impl Method for Prefix {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        match &self.content {
            Content::Table(table) | Content::Text { rest: table, .. } => vec![(TABLE.into(), table)],
            Content::Projection { embedding, layers } => {
                let embedding = [("prompt_encoder.embedding.weight".to_string(), embedding)];
                embedding.into_iter().chain(layers.iter().flat_map(Layer::parameters)).collect()
            }
        }
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        let content = match &self.content {
            Content::Table(table) => Content::Table(map(table)),
            Content::Text { first, rest } => Content::Text { first: first.clone(), rest: map(rest) },
            Content::Projection { embedding, layers } => Content::Projection {
                embedding: map(embedding),
                layers: Box::new(layers.each_ref().map(|layer| layer.mapped(map))),
            },
        };
        Arc::new(Prefix { content, ..self.clone() })
    }

    fn prefix_length(&self) -> usize {
        self.shared.count
    }

    fn tuning(&self, _: Option<Philox>) -> Arc<dyn Tuning> {
        let [heads, width] = self.heads;
        let table = self.content.table().reshape([self.shared.count, 2 * self.layers, heads, width]);
        Arc::new(Written { table })
    }

    fn write(&self, _: &Decoder, kept: Kept, directory: &Path) -> Result<()> {
        let Prefix { shared, content, .. } = self;
        // What a projection writes is kept, and no projection.
        let config = shared.to_json(PEFT_TYPE, json!({"prefix_projection": false}));
        let card =
            Card { base: shared.base(), method: "Prefix tuning", chosen: vec![("virtual tokens", shared.count.to_string())] };
        let tensors = BTreeMap::from([(TABLE.into(), content.table().detach())]);
        files::write(directory, Files { config, tensors, card, kept })
    }
}

/// The prefix of a pass.
struct Written {
    /// [V, 2 L, KV, D]: of every layer keys, then values.
    table: Tensor,
}

impl Tuning for Written {
    fn prefix_length(&self, _: usize) -> usize {
        self.table.size(0)
    }

    fn prefixes(&self, layer: usize, rows: usize) -> Vec<(usize, Option<[Tensor; 2]>)> {
        let [length, heads, width] = [0, 2, 3].map(|axis| self.table.size(axis));
        let part = |index: usize| self.table.slice(1, index..index + 1).reshape([length, heads, width]);
        vec![(rows, Some([part(2 * layer), part(2 * layer + 1)]))]
    }
}
