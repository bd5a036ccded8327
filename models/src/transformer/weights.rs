//! A decoder's weights and config in a model's folder, and back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, ops};

use super::families::{HEAD, Names, Projections};
use super::{Blueprint, Decoder};
use crate::error::{Error, Result};
use crate::formats::files::recover_directory;
use crate::formats::safetensors::{TensorInfo, View, Weights, save_model};

/// Bytes of a weight file past which a model is saved in shards, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

/// Loads the decoder of a Hugging Face directory. Matrices stay in the type that they are stored in.
///
/// # Errors
/// What [`Blueprint::open`] and [`Weights::open_model`] say; a size of the config that the weights do not have, a tensor of
/// another shape than the config says, one that is missing, and one that the config has no place for.
pub fn load_decoder(directory: &Path, device: &Device) -> Result<Decoder> {
    recover_directory(directory)?;
    let blueprint = Blueprint::open(directory)?;
    let weights = Weights::open_model(directory)?;
    check_sizes(directory, &blueprint, &weights)?;
    let mut used = BTreeSet::new();
    let (tied, names, class) = (blueprint.tie_word_embeddings, blueprint.family.names, blueprint.family.class_name);
    let decoder = Decoder::build(blueprint, &mut |name, shape| {
        let stored = stored_name(&weights, &names, name);
        used.insert(stored.to_string());
        let view = weights.get(stored)?;
        let error = |message: String| Error::Weights { path: weights.path().to_path_buf(), message };
        let is_transposed = names.is_transposed(name, shape.len());
        let expected: Vec<usize> = if is_transposed { shape.iter().rev().copied().collect() } else { shape.to_vec() };
        if view.shape != expected {
            return Err(error(format!("tensor `{stored}` has shape {:?}; the config says {expected:?}", view.shape)));
        }
        let refused = || error(format!("tensor `{stored}` is of type {}; expected f32, f16 or bf16", view.dtype));
        let tensor = tensor(device, &view).ok_or_else(refused)?;
        Ok(if is_transposed { ops::copy(&tensor.transpose()) } else { tensor })
    })?;
    // What some files carry although it follows from the rest; some tied models their embedding twice.
    let follows =
        |name: &str| names.follow.iter().any(|end| name.ends_with(end)) || (tied && name.strip_suffix(".weight") == Some(HEAD));
    match weights.names().find(|name| !used.contains(*name) && !follows(name)) {
        Some(name) => Err(Error::Weights {
            path: weights.path().to_path_buf(),
            message: format!("tensor `{name}` has no place in a {class}"),
        }),
        None => Ok(decoder),
    }
}

/// The name in these files of a parameter: its own, or without what old files leave out.
fn stored_name<'a>(weights: &Weights, names: &Names, name: &'a str) -> &'a str {
    let shorter = name.strip_prefix(names.optional).filter(|_| !weights.contains(name));
    shorter.filter(|name| weights.contains(name)).unwrap_or(name)
}

/// Holds the config's sizes against the shapes in the weights' headers, before anything is made by either. A tensor that is
/// missing says nothing here.
fn check_sizes(directory: &Path, blueprint: &Blueprint, weights: &Weights) -> Result<()> {
    let path = directory.join("config.json");
    let error = |key: &str, value: usize, expected: String| {
        Err(Error::Value { path: path.clone(), key: key.into(), found: value.to_string(), expected })
    };
    let (keys, names) = (blueprint.family.keys, blueprint.family.names);
    let blocks = [format!("{}.", names.blocks), format!("{}.", names.blocks.trim_start_matches(names.optional))];
    let number = |name: &str| {
        let rest = blocks.iter().find_map(|blocks| name.strip_prefix(blocks.as_str()))?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    let layers = weights.names().filter_map(number).collect::<BTreeSet<_>>().len();
    if layers > 0 && blueprint.num_hidden_layers != layers {
        let expected = format!("{layers}, as many as there are in {}", weights.path().display());
        return error(keys.layers, blueprint.num_hidden_layers, expected);
    }
    let embedding = format!("{}.weight", names.embedding);
    let inside = format!("{}.0.{}.{}.weight", names.blocks, names.feed_forward, names.up);
    let head_dim = blueprint.head_dim;
    let mut sizes = vec![
        (keys.vocabulary, blueprint.vocab_size, 1, embedding.clone(), 0),
        (keys.hidden, blueprint.hidden_size, 1, embedding, 1),
        (keys.inside, blueprint.intermediate_size, 1, inside, 0),
    ];
    if let Some(positions) = names.positions {
        sizes.push((keys.positions, blueprint.max_position_embeddings, 1, format!("{positions}.weight"), 0));
    }
    if let Projections::Separate([query, key, _]) = names.projections {
        let path = |name: &str| format!("{}.0.{}.{name}.weight", names.blocks, names.attention);
        sizes.push((keys.heads, blueprint.num_attention_heads, head_dim, path(query), 0));
        sizes.push(("num_key_value_heads", blueprint.num_key_value_heads, head_dim, path(key), 0));
    }
    for (key, value, unit, parameter, axis) in sizes {
        let tensor = stored_name(weights, &names, &parameter);
        let Some(shape) = weights.shape(tensor) else { continue };
        let axis = if names.is_transposed(&parameter, shape.len()) { 1 - axis } else { axis };
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

/// A decoder with new weights: matrices normal with the blueprint's `initializer_range`, norms one, biases zero; in f32.
pub fn new_decoder(blueprint: Blueprint, device: &Device, seed: u64) -> Result<Decoder> {
    let random = Philox::new(seed).stream(0x696e6974);
    let deviation = blueprint.initializer_range as f32;
    let mut index = 0;
    Decoder::build(blueprint, &mut |name, shape| {
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
    let mut blueprint = decoder.blueprint().clone();
    blueprint.dtype = Some(dtype);
    blueprint.save(directory)?;
    let parameters = decoder.parameters();
    let is_transposed = |name: &str, tensor: &Tensor| blueprint.family.names.is_transposed(name, tensor.rank());
    let info = |(name, tensor): &(String, &Tensor)| {
        let mut shape = tensor.shape().to_vec();
        if is_transposed(name, tensor) {
            shape.reverse();
        }
        TensorInfo { name: name.clone(), dtype, shape }
    };
    let infos: Vec<TensorInfo> = parameters.iter().map(info).collect();
    save_model(directory, &infos, SHARD_BYTES, |info| {
        let (name, tensor) = parameters.iter().find(|(name, _)| *name == info.name).expect("an info a parameter");
        let tensor = replaced(name, tensor)?.unwrap_or_else(|| tensor.detach());
        let tensor = if is_transposed(name, &tensor) { tensor.transpose() } else { tensor };
        Ok(Cow::Owned(ops::cast(&tensor, dtype).to_bytes()?))
    })
}
