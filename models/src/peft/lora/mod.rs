//! LoRA (Hu et al. 2021, arXiv:2106.09685): y = W x + (alpha / rank) B A x, with W frozen.

mod chosen;
mod config;
mod dora;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, checkpoint, ops};

pub(super) use chosen::ENTRY;
pub use config::{Bias, Init, LoraConfig};
use config::{base_layer_name, magnitude_name, saved_name, tensor_names};
use dora::Magnitude;

use super::files::{self, Files, Tensors};
use super::targets::{Targets, no_layer};
use super::{Kept, Method, Tuned};
use crate::error::{Error, Result};
use crate::formats::model_card::Card;
use crate::nn::{Embedding, Linear, Tuning};
use crate::transformer::Decoder;
use crate::wording::{sentence, shortened};

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
    /// Of DoRA.
    magnitude: Option<Magnitude>,
    /// What DoRA multiplies the output with, in a pass.
    factor: Option<Tensor>,
    /// The layer's place among the adapted ones: which stream its dropout draws from.
    index: u64,
    is_embedding: bool,
}

/// A layer that can be updated: a linear layer of a block, or the embedding, whose inputs are the vocabulary.
struct Layer<'a> {
    path: &'a str,
    weight: &'a Tensor,
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
        let paths: Vec<&str> = layers(&decoder).map(|layer| layer.path).collect();
        config.targets.check(&paths)?;
        let blocks = decoder.blueprint().num_hidden_layers;
        if let Some(block) = config.layers.iter().flatten().find(|block| **block >= blocks) {
            return Err(Error::Data { message: format!("block {block}: expected one below {blocks}, as many as the model has") });
        }
        let patterned = config.rank_pattern.keys().chain(config.alpha_pattern.keys()).chain(&config.exclude);
        for name in patterned {
            Targets::Named(vec![name.clone()]).check(&paths)?;
        }
        let config = match (&config.targets, &config.layers) {
            (Targets::AllLinear, Some(_)) => LoraConfig { targets: Targets::Named(last_parts(&paths)), ..config },
            (Targets::Pattern(_), Some(_)) => {
                let message = format!("blocks beside targets {}, which is said of whole names: expected names", config.targets);
                return Err(Error::Data { message });
            }
            _ => config,
        };
        let random = Philox::new(seed).stream(0x6c_6f7261);
        Lora::build(config, decoder, |config, layer, index, device| {
            let Layer { inputs, outputs, path, .. } = *layer;
            let rank = config.rank_of(path);
            check_rank(path, rank, [outputs, inputs])?;
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
            Ok((if layer.is_embedding { [device.zeros(a), drawn(b)] } else { [drawn(a), device.zeros(b)] }, None))
        })
    }

    /// Puts an adapter's folder in PEFT's layout onto this decoder.
    ///
    /// # Errors
    /// Unreadable files, a number that is not finite, and an adapter of another base: a target that the decoder lacks, a tensor of
    /// another shape, one that is missing, or one that belongs nowhere.
    pub fn open(directory: &Path, decoder: Decoder) -> Result<Tuned> {
        let mut tensors = Tensors::open(directory)?;
        let config = LoraConfig::open(directory)?;
        let adapted: BTreeSet<String> =
            layers(&decoder).filter(|layer| config.adapts(layer.path)).map(|layer| layer.path.to_string()).collect();
        let kept_name = |parameter: &str| kept_name(parameter, |path| adapted.contains(path));
        let Tuned { decoder, method, .. } = Lora::build(config, decoder, |config, layer, _, device| {
            let rank = config.rank_of(layer.path);
            let [a, b] = tensor_names(layer.path, layer.is_embedding);
            let magnitude = |tensors: &mut Tensors| tensors.read(&magnitude_name(layer.path), &[layer.outputs], device);
            let factors = [tensors.read(&a, &[rank, layer.inputs], device)?, tensors.read(&b, &[layer.outputs, rank], device)?];
            Ok((factors, config.decomposed.then(|| magnitude(&mut tensors)).transpose()?))
        })?;
        let names = decoder.blueprint().family.names;
        let mut saved = BTreeMap::new();
        for (name, parameter) in decoder.parameters().into_iter().filter(|(name, _)| method.trains(name)) {
            let shape = parameter.shape();
            let tensor = match names.is_transposed(&name, shape.len()) {
                true => ops::copy(&tensors.read(&kept_name(&name), &[shape[1], shape[0]], parameter.device())?.transpose()),
                false => tensors.read(&kept_name(&name), &shape, parameter.device())?,
            };
            saved.insert(name, tensor);
        }
        // PEFT keeps a copy of an embedding that is updated.
        let embedding = decoder.embedding();
        let copy = base_layer_name(&embedding.path, "weight");
        if let Some(theirs) = tensors.read_optional(&copy)?
            && theirs != ops::cast(&embedding.weight.detach(), DType::F32).to_vec()?
        {
            return Err(tensors.error(format!("tensor `{copy}` is not this model's embedding: an adapter of another base")));
        }
        tensors.finish()?;
        let decoder = decoder.mapped(|name, tensor| saved.get(name).unwrap_or(tensor).clone());
        Ok(Tuned::of(method, decoder))
    }

    /// Updates of these factors A and B, by the paths of the layers that `config` targets.
    pub(super) fn of(config: LoraConfig, decoder: Decoder, factors: &BTreeMap<String, [Tensor; 2]>) -> Result<Tuned> {
        Lora::build(config, decoder, |_, layer, _, _| Ok((factors[layer.path].clone(), None)))
    }

    fn build(
        config: LoraConfig,
        decoder: Decoder,
        mut factors: impl FnMut(&LoraConfig, &Layer, u64, &Device) -> Result<([Tensor; 2], Option<Tensor>)>,
    ) -> Result<Tuned> {
        let parameters: Vec<String> = decoder.untied().parameters().into_iter().map(|(name, _)| name).collect();
        for name in &config.saved {
            let one = LoraConfig { saved: vec![name.clone()], ..LoraConfig::default() };
            if !parameters.iter().any(|parameter| one.saves(parameter)) {
                let message = format!(
                    "module {:?} to be saved is not in the model: expected names as lm_head and norm",
                    shortened(name, 200)
                );
                return Err(Error::Data { message });
            }
        }
        let mut pairs = BTreeMap::new();
        for (index, layer) in layers(&decoder).filter(|layer| config.adapts(layer.path)).enumerate() {
            if config.saves(&format!("{}.weight", layer.path)) {
                let message = format!("{} is to be updated and to be trained whole: expected one of the two", layer.path);
                return Err(Error::Data { message });
            }
            if config.decomposed && layer.is_embedding {
                let message = format!("{} is an embedding: expected linear layers alone as targets of DoRA", layer.path);
                return Err(Error::Data { message });
            }
            let ([a, b], magnitude) = factors(&config, &layer, index as u64, decoder.device())?;
            let magnitude = config.decomposed.then(|| Magnitude::new(layer.weight, magnitude));
            let scale = config.scale_of(layer.path) as f32;
            let pair = Pair { a, b, scale, magnitude, factor: None, index: index as u64, is_embedding: layer.is_embedding };
            pairs.insert(layer.path.to_string(), pair);
        }
        if pairs.is_empty() {
            return Err(no_layer(
                &layers(&decoder).map(|layer| layer.path).collect::<Vec<_>>(),
                &format!("LoRA targets {} are", sentence(&config.targets)),
            ));
        }
        // What is done to an embedding is not done to the output projection, nor the other way.
        let ends = [format!("{}.weight", decoder.embedding().path), "lm_head.weight".into()];
        let parts = ends.iter().any(|name| config.saves(name)) || pairs.contains_key(&decoder.embedding().path);
        let decoder = if parts { decoder.untied() } else { decoder };
        let config = LoraConfig { fan_in_fan_out: decoder.blueprint().family.names.transposed, ..config };
        let lora = Lora { config, pairs, random: None };
        if lora.config.bias != Bias::None && !decoder.parameters().iter().any(|(name, _)| lora.trains_bias(name)) {
            let whose = if lora.config.bias == Bias::All { "the model" } else { "the updated layers" };
            let message = format!("bias \"{}\", and {whose} have none; expected \"none\"", lora.config.bias.name());
            return Err(Error::Data { message });
        }
        Ok(Tuned::of(Arc::new(lora), decoder))
    }

    /// Whether that is a bias of the base that is trained.
    fn trains_bias(&self, parameter: &str) -> bool {
        match (self.config.bias, parameter.strip_suffix(".bias")) {
            (Bias::None, _) | (_, None) => false,
            (Bias::All, Some(_)) => true,
            (Bias::Own, Some(path)) => self.pairs.contains_key(path),
        }
    }

    fn with(&self, map: impl Fn(&Tensor) -> Tensor) -> Lora {
        let mut mapped = self.clone();
        for pair in mapped.pairs.values_mut() {
            pair.a = map(&pair.a);
            pair.b = map(&pair.b);
            if let Some(magnitude) = &mut pair.magnitude {
                magnitude.trained = map(&magnitude.trained);
            }
        }
        mapped
    }
}

/// What linear layers of blocks are called within theirs: PEFT takes numbers of blocks beside names alone.
fn last_parts(paths: &[&str]) -> Vec<String> {
    let is_linear = |path: &&&str| Targets::AllLinear.include(path);
    let parts = paths.iter().filter(is_linear).filter_map(|path| path.rsplit('.').next());
    parts.map(str::to_string).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The name in the weight file of a parameter of the base that is trained whole; a layer that is updated is put into PEFT's own.
fn kept_name(parameter: &str, is_updated: impl Fn(&str) -> bool) -> String {
    match parameter.strip_suffix(".bias").filter(|path| is_updated(path)) {
        Some(path) => base_layer_name(path, "bias"),
        None => saved_name(parameter),
    }
}

/// Checks that a layer is as wide as its rank.
pub(super) fn check_rank(path: &str, rank: usize, shape: [usize; 2]) -> Result<()> {
    let most = shape[0].min(shape[1]);
    match rank > most {
        true => Err(Error::Data { message: format!("a rank of {rank} for {path}: expected at most its width, {most}") }),
        false => Ok(()),
    }
}

fn layers(decoder: &Decoder) -> impl Iterator<Item = Layer<'_>> {
    let Embedding { path, weight } = decoder.embedding();
    let embedding = Layer { path, weight, inputs: weight.size(0), outputs: weight.size(1), is_embedding: true };
    let linears = decoder.linears().map(|Linear { path, weight, .. }| {
        let [outputs, inputs] = [weight.size(0), weight.size(1)];
        Layer { path, weight, inputs, outputs, is_embedding: false }
    });
    linears.chain([embedding])
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn trains(&self, parameter: &str) -> bool {
        self.config.saves(parameter) || self.trains_bias(parameter)
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        let named = |(path, pair): (&String, _)| {
            let Pair { a, b, is_embedding, magnitude, .. }: &Pair = pair;
            let magnitude = magnitude.iter().map(|magnitude| (magnitude_name(path), &magnitude.trained));
            tensor_names(path, *is_embedding).into_iter().zip([a, b]).chain(magnitude).collect::<Vec<_>>()
        };
        self.pairs.iter().flat_map(named).collect()
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        Arc::new(self.with(map))
    }

    fn tuning(&self, random: Option<Philox>) -> Arc<dyn Tuning> {
        let mut tuning = Lora { random, ..self.clone() };
        for pair in tuning.pairs.values_mut() {
            pair.factor = pair.factor();
        }
        Arc::new(tuning)
    }

    fn merged(&self, name: &str, parameter: &Tensor) -> Option<Tensor> {
        let pair = self.pairs.get(name.strip_suffix(".weight")?)?;
        let updated = pair.added(parameter, 1.0);
        Some(match pair.factor() {
            Some(factor) => ops::mul(&updated, &factor.detach().reshape([updated.size(0), 1])),
            None => updated,
        })
    }

    fn unmerged(&self, name: &str, merged: &Tensor) -> Result<Option<Tensor>> {
        if self.trains(name) {
            let message = format!("`{name}` was trained whole: what it was before cannot be known");
            return Err(Error::Data { message });
        }
        match name.strip_suffix(".weight").and_then(|path| self.pairs.get_key_value(path)) {
            None => Ok(None),
            Some((path, Pair { magnitude: Some(_), .. })) => {
                let message = format!(
                    "DoRA gave the rows of {path} lengths of their own, m (W + s B A) / |W + s B A|: \
                     how long they were before, |W + s B A|, cannot be known from what is left"
                );
                Err(Error::Data { message })
            }
            Some((_, pair)) => Ok(Some(pair.added(merged, -1.0))),
        }
    }

    fn update(&self, name: &str) -> Option<[Tensor; 2]> {
        let Pair { a, b, scale, is_embedding, magnitude, .. } = self.pairs.get(name.strip_suffix(".weight")?)?;
        let (a, b) = (a.detach(), ops::scale(&b.detach(), *scale));
        magnitude.is_none().then(|| if *is_embedding { [a.transpose(), b.transpose()] } else { [b, a] })
    }

    fn write(&self, decoder: &Decoder, kept: Kept, directory: &Path) -> Result<()> {
        let saved = decoder.parameters().into_iter().filter(|(name, _)| self.trains(name));
        let names = decoder.blueprint().family.names;
        let kept_name = |parameter: &str| kept_name(parameter, |path| self.pairs.contains_key(path));
        let saved = saved.map(|(name, tensor)| match names.is_transposed(&name, tensor.rank()) {
            true => (kept_name(&name), tensor.transpose()),
            false => (kept_name(&name), tensor.clone()),
        });
        let own = self.parameters().into_iter().map(|(name, tensor)| (name, tensor.clone()));
        let tensors: BTreeMap<String, Tensor> = own.chain(saved).collect();
        let LoraConfig { rank, alpha, dropout, targets, saved, bias, base_model, .. } = &self.config;
        let mut chosen = vec![
            ("rank", rank.to_string()),
            ("alpha", alpha.to_string()),
            ("dropout", dropout.to_string()),
            ("target modules", targets.to_string()),
        ];
        if !saved.is_empty() {
            chosen.push(("modules saved whole", saved.join(", ")));
        }
        if *bias != Bias::None {
            chosen.push(("biases trained", bias.name().into()));
        }
        let card = Card { base: base_model.as_deref(), method: "LoRA", chosen };
        files::write(directory, Files { config: self.config.to_json(), tensors, card, kept })
    }
}

impl Tuning for Lora {
    fn embedding(&self, layer: &Embedding, ids: &Tensor, x: &Tensor) -> Option<Tensor> {
        let Pair { a, b, scale, .. } = self.pairs.get(&layer.path)?;
        let epilogue = ops::Epilogue { scale: *scale, residual: Some(x), ..Default::default() };
        Some(ops::linear_with(&ops::gather(&a.transpose(), ids), b, &epilogue))
    }

    fn leave(&self, layer: &Linear, x: &Tensor, y: &Tensor) -> Option<Tensor> {
        let pair = self.pairs.get(&layer.path)?;
        let probability = self.config.dropout as f32;
        let inside = match self.random {
            Some(random) if probability > 0.0 => {
                // What is left of x is drawn again for the gradient rather than kept.
                let (a, random) = (pair.a.clone(), random.stream(pair.index));
                checkpoint(x, move |x| ops::linear(&ops::dropout(x, random, probability), &a))
            }
            _ => ops::linear(x, &pair.a),
        };
        let epilogue = ops::Epilogue { scale: pair.scale, residual: Some(y), ..Default::default() };
        let updated = ops::linear_with(&inside, &pair.b, &epilogue);
        Some(match (&pair.factor, &layer.bias) {
            (None, _) => updated,
            (Some(factor), None) => ops::mul(&updated, factor),
            // The bias is in y already, and is no part of the weight.
            (Some(factor), Some(bias)) => ops::add(&ops::mul(&ops::sub(&updated, bias), factor), bias),
        })
    }
}

impl Pair {
    /// A weight with the update, so many times; in f32.
    fn added(&self, weight: &Tensor, times: f32) -> Tensor {
        let weight = ops::cast(&weight.detach(), DType::F32);
        let epilogue = ops::Epilogue { scale: times * self.scale, residual: Some(&weight), ..Default::default() };
        let (a, b) = (self.a.detach(), self.b.detach());
        match self.is_embedding {
            false => ops::matmul_with(&b, &a, &epilogue),
            true => ops::matmul_with(&a.transpose(), &b.transpose(), &epilogue),
        }
    }

    fn factor(&self) -> Option<Tensor> {
        self.magnitude.as_ref().map(|magnitude| magnitude.factor(&self.a, &self.b, self.scale))
    }
}
