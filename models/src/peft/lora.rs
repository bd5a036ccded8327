//! LoRA (Hu et al. 2021, arXiv:2106.09685): y = W x + (alpha / rank) B A x, with W frozen.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Tensor, checkpoint, ops};

use super::Tuning;
use crate::error::{Error, Result};
use crate::formats::adapter::{
    ADAPTER_FILE, AdapterConfig, Factor, Init, Targets, is_or_ends_in, parse_tensor_name, tensor_name,
};
use crate::formats::files::{recover_directory, write_bytes, write_directory};
use crate::formats::model_card::{CARD_FILE, adapter_card};
use crate::formats::safetensors::{self, TensorInfo, Weights};
use crate::nn::Linear;
use crate::transformer::Decoder;

/// The low-rank updates of a decoder's linear layers.
#[derive(Clone)]
pub struct Lora {
    config: AdapterConfig,
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
}

impl Lora {
    /// New updates for the layers that `config` targets: A random, B zero, so that the model is as it was.
    ///
    /// # Errors
    /// A target that is in no layer of this decoder, and a rank above a layer's width.
    pub fn new(config: AdapterConfig, decoder: &Decoder, seed: u64) -> Result<Lora> {
        if let Targets::Named(names) = &config.targets {
            let is_layer = |name: &&String| decoder.linears().any(|linear| is_or_ends_in(&linear.path, name));
            if let Some(name) = names.iter().find(|name| !is_layer(name)) {
                return Err(no_layer(decoder, &format!("target {name:?} is")));
            }
        }
        let random = Philox::new(seed).stream(0x6c_6f7261);
        Lora::build(config, decoder, |config, linear, index| {
            let [outputs, inputs] = [linear.weight.size(0), linear.weight.size(1)];
            let rank = config.rank_of(&linear.path);
            if rank > outputs.min(inputs) {
                let most = outputs.min(inputs);
                let message = format!("a rank of {rank} for {}: expected at most its width, {most}", linear.path);
                return Err(Error::Data { message });
            }
            let random = random.stream(index);
            let draw = |i: u64| match config.init {
                // Kaiming's uniform with a = sqrt 5 has the bound 1 / sqrt(inputs).
                Init::Kaiming => (2.0 * random.uniform(i) - 1.0) / (inputs as f32).sqrt(),
                Init::Gaussian => random.normal(i) / rank as f32,
            };
            let a: Vec<f32> = (0..(rank * inputs) as u64).map(draw).collect();
            let device = decoder.device();
            Ok((device.tensor(&a, [rank, inputs]), device.tensor(&vec![0.0; outputs * rank], [outputs, rank])))
        })
    }

    /// Reads an adapter directory in PEFT's layout for this decoder.
    ///
    /// # Errors
    /// Unreadable files, a number that is not finite, and an adapter of another base: a target that the decoder lacks, a tensor of
    /// another shape, one that is missing, or one that belongs nowhere.
    pub fn open(directory: &Path, decoder: &Decoder) -> Result<Lora> {
        recover_directory(directory)?;
        let config = AdapterConfig::open(directory)?;
        let path = directory.join(ADAPTER_FILE);
        let weights = Weights::open_file(&path)?;
        let lora = Lora::build(config, decoder, |config, linear, _| {
            let rank = config.rank_of(&linear.path);
            let read = |factor, shape: [usize; 2]| {
                let name = tensor_name(&linear.path, factor);
                let view = weights.get(&name)?;
                if view.shape != shape {
                    let message = format!(
                        "tensor `{name}` has shape {:?}, and this model needs {shape:?}: an adapter of another base",
                        view.shape
                    );
                    return Err(Error::Weights { path: path.clone(), message });
                }
                let values = view.to_f32();
                if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                    let message = format!("tensor `{name}` is {} at element {index}: expected finite numbers", values[index]);
                    return Err(Error::Weights { path: path.clone(), message });
                }
                Ok(decoder.device().tensor(&values, shape))
            };
            Ok((read(Factor::A, [rank, linear.weight.size(1)])?, read(Factor::B, [linear.weight.size(0), rank])?))
        })?;
        let stray =
            weights.names().find(|name| parse_tensor_name(name).is_none_or(|(module, _)| !lora.pairs.contains_key(module)));
        match stray {
            Some(name) => {
                let message = format!("tensor `{name}` belongs to no adapted layer of this model: an adapter of another base");
                Err(Error::Weights { path, message })
            }
            None => Ok(lora),
        }
    }

    fn build(
        config: AdapterConfig,
        decoder: &Decoder,
        mut factors: impl FnMut(&AdapterConfig, &Linear, u64) -> Result<(Tensor, Tensor)>,
    ) -> Result<Lora> {
        let mut pairs = BTreeMap::new();
        for (index, linear) in decoder.linears().filter(|linear| config.adapts(&linear.path)).enumerate() {
            let (a, b) = factors(&config, linear, index as u64)?;
            let scale = config.scale_of(&linear.path) as f32;
            pairs.insert(linear.path.clone(), Pair { a, b, scale, index: index as u64 });
        }
        if pairs.is_empty() {
            return Err(no_layer(decoder, &format!("LoRA targets {} are", config.targets)));
        }
        Ok(Lora { config, pairs, random: None })
    }

    /// What it was made from.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// All factors under PEFT's names.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let names = |path: &str| [tensor_name(path, Factor::A), tensor_name(path, Factor::B)];
        self.pairs.iter().flat_map(|(path, pair)| names(path).into_iter().zip([&pair.a, &pair.b])).collect()
    }

    /// The same updates with factors that take gradients.
    pub fn requiring_grad(&self) -> Lora {
        self.mapped(Tensor::requiring_grad)
    }

    /// The same updates off the tape and without dropout: for evaluation while they are trained.
    pub fn detach(&self) -> Lora {
        Lora { random: None, ..self.mapped(Tensor::detach) }
    }

    /// The same updates with dropout drawn from `random`: another stream for every pass.
    pub fn dropping(&self, random: Philox) -> Lora {
        Lora { random: Some(random), ..self.clone() }
    }

    fn mapped(&self, f: impl Fn(&Tensor) -> Tensor) -> Lora {
        let mut mapped = self.clone();
        for pair in mapped.pairs.values_mut() {
            pair.a = f(&pair.a);
            pair.b = f(&pair.b);
        }
        mapped
    }

    /// W + scale B A for the layer at `path`, in f32; `None` if it is not adapted.
    pub fn merged(&self, path: &str, weight: &Tensor) -> Option<Tensor> {
        let pair = self.pairs.get(path)?;
        let weight = ops::cast(&weight.detach(), DType::F32);
        let epilogue = ops::Epilogue { scale: pair.scale, residual: Some(&weight), ..Default::default() };
        Some(ops::matmul_with(&pair.b.detach(), &pair.a.detach(), &epilogue))
    }

    /// Writes the adapter in PEFT's layout, replacing what is at `directory` as a whole.
    ///
    /// # Errors
    /// A full disk or a device that failed; what was there before is then still there.
    pub fn save(&self, directory: &Path) -> Result<()> {
        write_directory(directory, |directory| self.write_into(directory))
    }

    /// [`save`](Self::save) into a folder that holds other files too: each file is replaced on its own.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn write_into(&self, directory: &Path) -> Result<()> {
        let parameters: BTreeMap<String, &Tensor> = self.parameters().into_iter().collect();
        let infos: Vec<TensorInfo> = parameters
            .iter()
            .map(|(name, tensor)| TensorInfo { name: name.clone(), dtype: DType::F32, shape: tensor.shape().to_vec() })
            .collect();
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::save(&directory.join(ADAPTER_FILE), &infos, &metadata, |info| {
            Ok(Cow::Owned(parameters[&info.name].to_bytes()?))
        })?;
        let card = directory.join(CARD_FILE);
        // Somebody may have written more on it.
        if !card.exists() {
            write_bytes(&card, adapter_card(&self.config).as_bytes())?;
        }
        self.config.save(directory)
    }
}

/// The error for targets that the decoder lacks.
fn no_layer(decoder: &Decoder, targets_are: &str) -> Error {
    let mut names: Vec<&str> = decoder.linears().filter_map(|linear| linear.path.rsplit('.').next()).collect();
    names.sort_unstable();
    names.dedup();
    Error::Data { message: format!("{targets_are} in no layer of the model: expected some of {}", names.join(", ")) }
}

impl Tuning for Lora {
    fn linear(&self, path: &str, x: &Tensor, y: Tensor) -> Tensor {
        let Some(pair) = self.pairs.get(path) else { return y };
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
