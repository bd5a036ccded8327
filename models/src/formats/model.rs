//! A model directory as a decoder on a device, and back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, ops};

use super::config::ModelConfig;
use super::files::{recover_directory, write_bytes};
use super::safetensors::{TensorInfo, View, Weights, save_model};
use crate::error::{Error, Result};
use crate::transformer::Decoder;

/// Bytes of a weight file past which a model is saved in shards, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

/// What a model is loaded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// To be read only: matrices stay in the type that they are stored in.
    Frozen,
    /// To be trained whole: every parameter in f32 and on the tape.
    Trained,
}

/// Loads the decoder of a Hugging Face directory.
///
/// # Errors
/// What [`ModelConfig::open`] and [`Weights::open_model`] say; a tensor of another shape than the config says, one that is
/// missing, and one that the config has no place for.
pub fn load_decoder(directory: &Path, device: &Device, purpose: Use) -> Result<Decoder> {
    recover_directory(directory)?;
    let config = ModelConfig::open(directory)?;
    let weights = Weights::open_model(directory)?;
    let mut used = BTreeSet::new();
    let tied = config.tie_word_embeddings;
    let decoder = Decoder::build(config, &mut |name, shape| {
        used.insert(name.to_string());
        let view = weights.get(name)?;
        if view.shape != shape {
            let message = format!("tensor `{name}` has shape {:?}; the config says {shape:?}", view.shape);
            return Err(Error::Weights { path: weights.path().to_path_buf(), message });
        }
        tensor(device, &view, purpose).ok_or_else(|| Error::Weights {
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

fn tensor(device: &Device, view: &View<'_>, purpose: Use) -> Option<Tensor> {
    if view.dtype == DType::U32 {
        return None;
    }
    // Norms and biases are small, and enter sums: they are widened at once.
    if purpose == Use::Frozen && view.shape.len() > 1 {
        return Some(device.tensor_of_bytes(view.payload(), view.dtype, view.shape));
    }
    let tensor = match view.dtype {
        DType::F32 => device.tensor_of_bytes(view.payload(), DType::F32, view.shape),
        _ => device.tensor(&view.to_f32(), view.shape),
    };
    Some(if purpose == Use::Trained { tensor.requiring_grad() } else { tensor })
}

/// A decoder with new weights: matrices normal with the config's `initializer_range`, norms one, biases zero; in f32 and on
/// the tape.
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
        Ok(device.tensor(&values, shape).requiring_grad())
    })
}

/// Writes `config.json` and the weights in `dtype` into a folder; `replaced` may give another tensor for a parameter, as
/// merging does.
///
/// # Errors
/// A full disk or a device that failed.
pub fn save_decoder(
    directory: &Path,
    decoder: &Decoder,
    dtype: DType,
    replaced: impl Fn(&str, &Tensor) -> Option<Tensor>,
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
        let tensor = replaced(&info.name, tensor).unwrap_or_else(|| tensor.detach());
        Ok(Cow::Owned(ops::cast(&tensor, dtype).to_bytes()?))
    })
}

/// Copies what belongs to a model beside its weights and config: the tokenizer, the chat template, generation defaults.
///
/// # Errors
/// A file that cannot be read or written; one that is not there is passed over.
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    let names =
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"];
    for name in names {
        match std::fs::read(from.join(name)) {
            Ok(bytes) => write_bytes(&to.join(name), &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(from.join(name))(error)),
        }
    }
    Ok(())
}
