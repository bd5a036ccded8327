//! LoRA (Hu et al. 2021, arXiv:2106.09685): y = W x + (alpha / rank) B A x, with W frozen.

mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, checkpoint, ops};

pub use config::{Init, LoraConfig, Targets};
use config::{base_layer_name, is_or_ends_in, saved_name, tensor_names};

use super::files::{self, ADAPTER_FILE};
use super::settings::{Form, Setting, Settings, names};
use super::{Adapter, Entry, Method, Tuned};
use crate::error::{Error, Result};
use crate::formats::model_card::adapter_card;
use crate::formats::safetensors::Weights;
use crate::nn::{Embedding, Linear, Tuning};
use crate::transformer::Decoder;

pub(super) const ENTRY: Entry = Entry {
    name: "lora",
    about: "Low-rank updates of a frozen model",
    // With all-linear and rank 8 it gains three times as much in 30 steps as 2e-4 on q_proj and v_proj does, and a little more in
    // 300: benches/results/2026-11-24-defaults.md.
    learning_rate: 5e-4,
    settings: &[
        Setting {
            name: "rank",
            help: "LoRA's rank, at most a layer's width",
            form: Form::Whole { range: 1..=65_536, default: 8 },
        },
        Setting { name: "alpha", help: "LoRA's alpha: updates are scaled by alpha / rank", form: Form::AboveZero(16.0) },
        Setting { name: "dropout", help: "Dropout of what enters an update", form: Form::BelowOne(0.0) },
        Setting {
            name: "targets",
            help: "Names of the layers to update, separated by commas, each in the model, or all-linear",
            form: Form::Text { value: "NAMES", default: "all-linear", check: |text| names(text).map(drop) },
        },
        Setting {
            name: "init",
            help: "How A begins; B is zero",
            form: Form::OneOf(&[("kaiming", "Uniform within 1 / sqrt(inputs)"), ("gaussian", "Normal with deviation 1 / rank")]),
        },
        Setting {
            name: "rslora",
            help: "Scale updates by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)",
            form: Form::Switch,
        },
        Setting {
            name: "modules-to-save",
            help: "Names of modules that are trained whole beside the updates, and kept with them, separated by commas",
            form: Form::Text { value: "NAMES", default: "", check: |text| names(text).map(drop) },
        },
    ],
    begin: |settings, decoder, base, seed| Lora::begin(LoraConfig::chosen(settings, base)?, decoder, seed),
    adapter: Some(Adapter { peft_type: "LORA", open: Lora::open }),
};

impl LoraConfig {
    fn chosen(settings: &Settings, base: &str) -> Result<LoraConfig> {
        let list = |name: &str| match settings.text(name) {
            "" => Ok(Vec::new()),
            text => names(text).map_err(|message| Error::Data { message }),
        };
        let targets = list("targets")?;
        Ok(LoraConfig {
            rank: settings.whole("rank"),
            alpha: settings.number("alpha"),
            dropout: settings.number("dropout"),
            targets: if targets == ["all-linear"] { Targets::AllLinear } else { Targets::Named(targets) },
            rank_stabilised: settings.is_on("rslora"),
            init: if settings.text("init") == "gaussian" { Init::Gaussian } else { Init::Kaiming },
            saved: list("modules-to-save")?,
            base_model: Some(base.into()),
            ..LoraConfig::default()
        })
    }
}

/// The low-rank updates of a decoder's layers.
#[derive(Clone)]
pub struct Lora {
    config: LoraConfig,
    /// By the path of the layer that each updates.
    pairs: BTreeMap<String, Pair>,
    /// What dropout draws from; `None` turns it off.
    random: Option<Philox>,
}

#[derive(Clone)]
struct Pair {
    /// [rank, inputs].
    a: Tensor,
    /// [outputs, rank].
    b: Tensor,
    scale: f32,
    /// The layer's place among the adapted ones: which stream its dropout draws from.
    index: u64,
    is_embedding: bool,
}

/// A layer that can be updated: a linear layer of a block, or the embedding, whose inputs are the vocabulary.
struct Layer<'a> {
    path: &'a str,
    inputs: usize,
    outputs: usize,
    is_embedding: bool,
}

impl Lora {
    /// New updates for the layers that `config` targets, which leave the decoder as it was: of A and B one is random, one zero.
    ///
    /// # Errors
    /// A target that is in no layer of this decoder, and a rank above a layer's width.
    pub fn begin(config: LoraConfig, decoder: Decoder, seed: u64) -> Result<Tuned> {
        if let Targets::Named(names) = &config.targets {
            let is_layer = |name: &&String| layers(&decoder).any(|layer| is_or_ends_in(layer.path, name));
            if let Some(name) = names.iter().find(|name| !is_layer(name)) {
                return Err(no_layer(&decoder, &format!("target {name:?} is")));
            }
        }
        let random = Philox::new(seed).stream(0x6c_6f7261);
        Lora::build(config, decoder, |config, layer, index, device| {
            let Layer { inputs, outputs, path, .. } = *layer;
            let rank = config.rank_of(path);
            if rank > outputs.min(inputs) {
                let most = outputs.min(inputs);
                let message = format!("a rank of {rank} for {path}: expected at most its width, {most}");
                return Err(Error::Data { message });
            }
            let random = random.stream(index);
            let draw = |i: u64| match config.init {
                // PEFT's, whatever the config says.
                _ if layer.is_embedding => random.normal(i),
                // Kaiming's uniform with a = sqrt 5 has the bound 1 / sqrt(inputs).
                Init::Kaiming => (2.0 * random.uniform(i) - 1.0) / (inputs as f32).sqrt(),
                Init::Gaussian => random.normal(i) / rank as f32,
            };
            let drawn = |[rows, columns]: [usize; 2]| {
                let values: Vec<f32> = (0..(rows * columns) as u64).map(draw).collect();
                device.tensor(&values, [rows, columns])
            };
            let (a, b) = ([rank, inputs], [outputs, rank]);
            // PEFT's zero is B, but A of an embedding.
            Ok(if layer.is_embedding { [device.zeros(a), drawn(b)] } else { [drawn(a), device.zeros(b)] })
        })
    }

    /// Puts an adapter's folder in PEFT's layout onto this decoder.
    ///
    /// # Errors
    /// Unreadable files, a number that is not finite, and an adapter of another base: a target that the decoder lacks, a tensor of
    /// another shape, one that is missing, or one that belongs nowhere.
    pub fn open(directory: &Path, decoder: Decoder) -> Result<Tuned> {
        let weights = Weights::open_file(&directory.join(ADAPTER_FILE))?;
        let mut used = BTreeSet::new();
        let mut read = |name: String, shape: &[usize], device: &Device| {
            let tensor = files::read(&weights, &name, shape, device);
            used.insert(name);
            tensor
        };
        let Tuned { decoder, method } = Lora::build(LoraConfig::open(directory)?, decoder, |config, layer, _, device| {
            let rank = config.rank_of(layer.path);
            let [a, b] = tensor_names(layer.path, layer.is_embedding);
            Ok([read(a, &[rank, layer.inputs], device)?, read(b, &[layer.outputs, rank], device)?])
        })?;
        let names = decoder.blueprint().family.names;
        let mut saved = BTreeMap::new();
        for (name, parameter) in decoder.parameters().into_iter().filter(|(name, _)| method.trains(name)) {
            let shape = parameter.shape();
            let tensor = match names.is_transposed(&name, shape.len()) {
                true => ops::copy(&read(saved_name(&name), &[shape[1], shape[0]], parameter.device())?.transpose()),
                false => read(saved_name(&name), &shape, parameter.device())?,
            };
            saved.insert(name, tensor);
        }
        // PEFT keeps a copy of an embedding that is updated.
        let embedding = decoder.embedding();
        let copy = base_layer_name(&embedding.path);
        if weights.names().any(|name| name == copy) {
            let (theirs, ours) = (weights.get(&copy)?.to_f32(), ops::cast(&embedding.weight.detach(), DType::F32).to_vec()?);
            if theirs != ours {
                let message = format!("tensor `{copy}` is not this model's embedding: an adapter of another base");
                return Err(Error::Weights { path: weights.path().to_path_buf(), message });
            }
            used.insert(copy);
        }
        if let Some(name) = weights.names().find(|name| !used.contains(*name)) {
            let message = format!("tensor `{name}` belongs to no adapted layer of this model: an adapter of another base");
            return Err(Error::Weights { path: weights.path().to_path_buf(), message });
        }
        let decoder = decoder.mapped(|name, tensor| saved.get(name).unwrap_or(tensor).clone());
        Ok(Tuned { decoder, method })
    }

    fn build(
        config: LoraConfig,
        decoder: Decoder,
        mut factors: impl FnMut(&LoraConfig, &Layer, u64, &Device) -> Result<[Tensor; 2]>,
    ) -> Result<Tuned> {
        let parameters: Vec<String> = decoder.untied().parameters().into_iter().map(|(name, _)| name).collect();
        for name in &config.saved {
            let one = LoraConfig { saved: vec![name.clone()], ..LoraConfig::default() };
            if !parameters.iter().any(|parameter| one.saves(parameter)) {
                let message = format!("module {name:?} to be saved is not in the model: expected names as lm_head and norm");
                return Err(Error::Data { message });
            }
        }
        let mut pairs = BTreeMap::new();
        for (index, layer) in layers(&decoder).filter(|layer| config.adapts(layer.path)).enumerate() {
            if config.saves(&format!("{}.weight", layer.path)) {
                let message = format!("{} is to be updated and to be trained whole: expected one of the two", layer.path);
                return Err(Error::Data { message });
            }
            let [a, b] = factors(&config, &layer, index as u64, decoder.device())?;
            let scale = config.scale_of(layer.path) as f32;
            pairs.insert(layer.path.to_string(), Pair { a, b, scale, index: index as u64, is_embedding: layer.is_embedding });
        }
        if pairs.is_empty() {
            return Err(no_layer(&decoder, &format!("LoRA targets {} are", config.targets)));
        }
        // What is done to an embedding is not done to the output projection, nor the other way.
        let ends = [format!("{}.weight", decoder.embedding().path), "lm_head.weight".into()];
        let parts = ends.iter().any(|name| config.saves(name)) || pairs.contains_key(&decoder.embedding().path);
        let decoder = if parts { decoder.untied() } else { decoder };
        let config = LoraConfig { fan_in_fan_out: decoder.blueprint().family.names.transposed, ..config };
        Ok(Tuned { decoder, method: Arc::new(Lora { config, pairs, random: None }) })
    }

    fn with(&self, map: impl Fn(&Tensor) -> Tensor) -> Lora {
        let mut mapped = self.clone();
        for pair in mapped.pairs.values_mut() {
            pair.a = map(&pair.a);
            pair.b = map(&pair.b);
        }
        mapped
    }
}

fn layers(decoder: &Decoder) -> impl Iterator<Item = Layer<'_>> {
    let Embedding { path, weight } = decoder.embedding();
    let embedding = Layer { path, inputs: weight.size(0), outputs: weight.size(1), is_embedding: true };
    let linears = decoder.linears().map(|Linear { path, weight, .. }| {
        let [outputs, inputs] = [weight.size(0), weight.size(1)];
        Layer { path, inputs, outputs, is_embedding: false }
    });
    linears.chain([embedding])
}

/// The error for targets that the decoder lacks.
fn no_layer(decoder: &Decoder, targets_are: &str) -> Error {
    let mut names: Vec<&str> = layers(decoder).filter_map(|layer| layer.path.rsplit('.').next()).collect();
    names.sort_unstable();
    names.dedup();
    Error::Data { message: format!("{targets_are} in no layer of the model: expected some of {}", names.join(", ")) }
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn trains(&self, parameter: &str) -> bool {
        self.config.saves(parameter)
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        let named = |(path, pair): (&String, _)| {
            let Pair { a, b, is_embedding, .. }: &Pair = pair;
            tensor_names(path, *is_embedding).into_iter().zip([a, b]).collect::<Vec<_>>()
        };
        self.pairs.iter().flat_map(named).collect()
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        Arc::new(self.with(map))
    }

    fn tuning(&self, random: Option<Philox>) -> Arc<dyn Tuning> {
        Arc::new(Lora { random, ..self.clone() })
    }

    fn merged(&self, name: &str, parameter: &Tensor) -> Option<Tensor> {
        let Pair { a, b, scale, is_embedding, .. } = self.pairs.get(name.strip_suffix(".weight")?)?;
        let weight = ops::cast(&parameter.detach(), DType::F32);
        let epilogue = ops::Epilogue { scale: *scale, residual: Some(&weight), ..Default::default() };
        let (a, b) = (a.detach(), b.detach());
        Some(match is_embedding {
            false => ops::matmul_with(&b, &a, &epilogue),
            true => ops::matmul_with(&a.transpose(), &b.transpose(), &epilogue),
        })
    }

    fn is_adapter(&self) -> bool {
        true
    }

    fn write(&self, decoder: &Decoder, directory: &Path) -> Result<()> {
        let saved = decoder.parameters().into_iter().filter(|(name, _)| self.trains(name));
        let names = decoder.blueprint().family.names;
        let saved = saved.map(|(name, tensor)| match names.is_transposed(&name, tensor.rank()) {
            true => (saved_name(&name), tensor.transpose()),
            false => (saved_name(&name), tensor.clone()),
        });
        let own = self.parameters().into_iter().map(|(name, tensor)| (name, tensor.clone()));
        let tensors: BTreeMap<String, Tensor> = own.chain(saved).collect();
        let LoraConfig { rank, alpha, dropout, targets, saved, base_model, .. } = &self.config;
        let mut chosen = vec![
            ("rank", rank.to_string()),
            ("alpha", alpha.to_string()),
            ("dropout", dropout.to_string()),
            ("target modules", targets.to_string()),
        ];
        if !saved.is_empty() {
            chosen.push(("modules saved whole", saved.join(", ")));
        }
        let card = adapter_card(base_model.as_deref(), "LoRA", &chosen);
        files::write(directory, &self.config.to_json(), &tensors, &card)
    }
}

impl Tuning for Lora {
    fn embedding(&self, layer: &Embedding, ids: &Tensor) -> Tensor {
        let y = layer.forward(ids);
        let Some(Pair { a, b, scale, .. }) = self.pairs.get(&layer.path) else { return y };
        let epilogue = ops::Epilogue { scale: *scale, residual: Some(&y), ..Default::default() };
        ops::linear_with(&ops::gather(&a.transpose(), ids), b, &epilogue)
    }

    fn linear(&self, layer: &Linear, x: &Tensor) -> Tensor {
        let y = layer.forward(x);
        let Some(pair) = self.pairs.get(&layer.path) else { return y };
        let probability = self.config.dropout as f32;
        let inside = match self.random {
            Some(random) if probability > 0.0 => {
                // What is left of x is drawn again for the gradient rather than kept.
                let (a, random) = (pair.a.clone(), random.stream(pair.index));
                checkpoint(x, move |x| ops::linear(&ops::dropout(x, random, probability), &a))
            }
            _ => ops::linear(x, &pair.a),
        };
        let epilogue = ops::Epilogue { scale: pair.scale, residual: Some(&y), ..Default::default() };
        ops::linear_with(&inside, &pair.b, &epilogue)
    }
}
