//! A decoder's weights and config in a model's folder, and back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, ops};

use super::config::ModelConfig;
use super::files::recover_directory;
use super::safetensors::{TensorInfo, View, Weights, save_model};
use crate::error::{Error, Result};
use crate::transformer::Decoder;

/// Bytes of a weight file past which a model is saved in shards, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

/// Loads the decoder of a Hugging Face directory. Matrices stay in the type that they are stored in.
///
/// # Errors
/// What [`ModelConfig::open`] and [`Weights::open_model`] say; a size of the config that the weights do not have, a tensor of
/// another shape than the config says, one that is missing, and one that the config has no place for.
pub fn load_decoder(directory: &Path, device: &Device) -> Result<Decoder> {
    recover_directory(directory)?;
    let config = ModelConfig::open(directory)?;
    let weights = Weights::open_model(directory)?;
    check_sizes(directory, &config, &weights)?;
    let mut used = BTreeSet::new();
    let tied = config.tie_word_embeddings;
    let decoder = Decoder::build(config, &mut |name, shape| {
        used.insert(name.to_string());
        let view = weights.get(name)?;
        if view.shape != shape {
            let message = format!("tensor `{name}` has shape {:?}; the config says {shape:?}", view.shape);
            return Err(Error::Weights { path: weights.path().to_path_buf(), message });
        }
        tensor(device, &view).ok_or_else(|| Error::Weights {
            path: weights.path().to_path_buf(),
            message: format!("tensor `{name}` is of type {}; expected f32, f16 or bf16", view.dtype),
        })
    })?;
    // Old files carry RoPE's frequencies, and some tied models their embedding twice: both follow from the rest.
    let follows = |name: &str| name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
    match weights.names().find(|name| !used.contains(*name) && !follows(name)) {
        Some(name) => Err(Error::Weights {
            path: weights.path().to_path_buf(),
            message: format!("tensor `{name}` has no place in a {}", decoder.config().architecture.class_name()),
        }),
        None => Ok(decoder),
    }
}

/// Holds the config's sizes against the shapes in the weights' headers, before anything is made by either. A tensor that is
/// missing says nothing here.
fn check_sizes(directory: &Path, config: &ModelConfig, weights: &Weights) -> Result<()> {
    let path = directory.join("config.json");
    let error = |key: &str, value: usize, expected: String| {
        Err(Error::Value { path: path.clone(), key: key.into(), found: value.to_string(), expected })
    };
    let numbers = weights.names().filter_map(|name| name.strip_prefix("model.layers.")?.split('.').next()?.parse::<usize>().ok());
    let layers = numbers.collect::<BTreeSet<_>>().len();
    if layers > 0 && config.num_hidden_layers != layers {
        let expected = format!("{layers}, as many as there are in {}", weights.path().display());
        return error("num_hidden_layers", config.num_hidden_layers, expected);
    }
    let head_dim = config.head_dim;
    for (key, value, unit, tensor, axis) in [
        ("vocab_size", config.vocab_size, 1, "model.embed_tokens.weight", 0),
        ("hidden_size", config.hidden_size, 1, "model.embed_tokens.weight", 1),
        ("intermediate_size", config.intermediate_size, 1, "model.layers.0.mlp.gate_proj.weight", 0),
        ("num_attention_heads", config.num_attention_heads, head_dim, "model.layers.0.self_attn.q_proj.weight", 0),
        ("num_key_value_heads", config.num_key_value_heads, head_dim, "model.layers.0.self_attn.k_proj.weight", 0),
    ] {
        let Some(shape) = weights.shape(tensor) else { continue };
        if shape.get(axis).copied() != value.checked_mul(unit) {
            let heads = if unit == 1 { String::new() } else { format!(", by the {unit} of a head") };
            let expected = format!("the size that tensor `{tensor}` in {} has: {shape:?}{heads}", weights.path().display());
            return error(key, value, expected);
        }
    }
    Ok(())
}

fn tensor(device: &Device, view: &View<'_>) -> Option<Tensor> {
    match view.dtype {
        DType::U32 => None,
        // Norms and biases are small, and enter sums: they are widened at once.
        DType::F16 | DType::BF16 if view.shape.len() == 1 => Some(device.tensor(&view.to_f32(), view.shape)),
        dtype => Some(device.tensor_of_bytes(view.payload(), dtype, view.shape)),
    }
}

/// A decoder with new weights: matrices normal with the config's `initializer_range`, norms one, biases zero; in f32.
pub fn new_decoder(config: ModelConfig, device: &Device, seed: u64) -> Result<Decoder> {
    let random = Philox::new(seed).stream(0x696e6974);
    let deviation = config.initializer_range as f32;
    let mut index = 0;
    Decoder::build(config, &mut |name, shape| {
        index += 1;
        let random = random.stream(index);
        let values: Vec<f32> = match shape {
            [_] => vec![if name.ends_with(".bias") { 0.0 } else { 1.0 }; shape[0]],
            _ => (0..shape.iter().product::<usize>() as u64).map(|i| deviation * random.normal(i)).collect(),
        };
        Ok(device.tensor(&values, shape))
    })
}

/// Writes `config.json` and the weights in `dtype` into a folder; `replaced` may give another tensor for a parameter, as
/// merging does.
///
/// # Errors
/// A full disk, a device that failed, or what `replaced` returns.
pub fn save_decoder(
    directory: &Path,
    decoder: &Decoder,
    dtype: DType,
    replaced: impl Fn(&str, &Tensor) -> Result<Option<Tensor>>,
) -> Result<()> {
    let mut config = decoder.config().clone();
    config.dtype = Some(dtype);
    config.save(directory)?;
    let parameters = decoder.parameters();
    let infos: Vec<TensorInfo> = parameters
        .iter()
        .map(|(name, tensor)| TensorInfo { name: name.clone(), dtype, shape: tensor.shape().to_vec() })
        .collect();
    save_model(directory, &infos, SHARD_BYTES, |info| {
        let (_, tensor) = parameters.iter().find(|(name, _)| *name == info.name).expect("an info a parameter");
        let tensor = replaced(&info.name, tensor)?.unwrap_or_else(|| tensor.detach());
        Ok(Cow::Owned(ops::cast(&tensor, dtype).to_bytes()?))
    })
}
