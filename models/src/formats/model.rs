//! A model directory as a decoder on a device, and back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use twox_hash::xxhash3_128;
use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Tensor, ops};

use super::adapter::ADAPTER_FILE;
use super::chat_template::TEMPLATE_FILE;
use super::config::ModelConfig;
use super::files::{read_bytes, recover_directory, write_bytes};
use super::json::Object;
use super::model_card::is_hub_name;
use super::safetensors::{INDEX_FILE, MODEL_FILE, TensorInfo, View, Weights, save_model};
use crate::error::{Error, Result};
use crate::transformer::Decoder;

/// Bytes of a weight file past which a model is saved in shards, as transformers does.
const SHARD_BYTES: usize = 5_000_000_000;

const GENERATION_FILE: &str = "generation_config.json";
/// The tokenizer and the chat template.
const TOKENIZER_FILES: [&str; 4] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", TEMPLATE_FILE];

/// Whether a file of this name is part of a model directory that is written here.
pub fn is_model_file(name: &str) -> bool {
    let is_shard = || name.starts_with("model-") && name.ends_with(".safetensors");
    let others = ["config.json", GENERATION_FILE, MODEL_FILE, INDEX_FILE];
    others.contains(&name) || TOKENIZER_FILES.contains(&name) || is_shard()
}

/// Checks that there is a model directory at `path`, before anything of it is read.
///
/// # Errors
/// [`Error::Data`] that says what is there instead: nothing, a file, a hub's name, a folder without a `config.json`.
pub fn check_directory(path: &Path) -> Result<()> {
    recover_directory(path)?;
    let shown = path.display();
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let convert = "transformers makes a folder of it: \
         AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=FILE).save_pretrained(DIR), and the same with AutoTokenizer";
    let expected = "expected the folder of a model, with config.json, model.safetensors and tokenizer.json";
    let message = if path.is_file() && is_gguf(path) {
        format!("{shown} is a GGUF file; {expected}: {convert}")
    } else if path.is_file() {
        format!("{shown} is a file; {expected}")
    } else if !path.exists() && path.to_str().is_some_and(is_hub_name) {
        format!(
            "there is no folder {shown}; {expected}: nothing is downloaded here, `hf download {shown} --local-dir DIR` does it"
        )
    } else if !path.exists() {
        format!("there is no folder {shown}; {expected}")
    } else if !path.join("config.json").exists() {
        let entries = path.read_dir().map_err(Error::io(path))?;
        match entries.flatten().find(|entry| is_gguf(&entry.path())) {
            Some(gguf) => format!("{shown} has no config.json, only {}; {expected}: {convert}", gguf.file_name().display()),
            None if path.join(ADAPTER_FILE).exists() => format!("{shown} is the folder of an adapter; {expected}"),
            None => format!("{shown} has no config.json; {expected}"),
        }
    } else {
        return Ok(());
    };
    Err(Error::Data { message })
}

/// A hash of what the model in a folder is: its config, and the names, shapes and elements of its weights. The folder's place,
/// how its weights are cut into files, and its tokenizer have no part in it.
///
/// # Errors
/// What [`ModelConfig::open`] and [`Weights::open_model`] say.
pub fn fingerprint(directory: &Path) -> Result<String> {
    let config = ModelConfig::open(directory)?;
    let weights = Weights::open_model(directory)?;
    let mut hash = xxhash3_128::Hasher::new();
    hash.write(config.to_json().to_string().as_bytes());
    for name in weights.names() {
        let view = weights.get(name)?;
        hash.write(format!("{name} {} {:?}", view.dtype, view.shape).as_bytes());
        hash.write(view.bytes);
    }
    Ok(format!("{:032x}", hash.finish_128()))
}

/// What an adapter may call its base: the hub's name where the config says one, or else the folder's whole path, since the
/// adapter is read from elsewhere.
///
/// # Errors
/// A config that cannot be read.
pub fn base_name(directory: &Path) -> Result<String> {
    let name = Object::read(&directory.join("config.json"))?.string("_name_or_path")?;
    let whole = || std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf()).display().to_string();
    Ok(name.filter(|name| is_hub_name(name)).unwrap_or_else(whole))
}

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
/// What [`ModelConfig::open`] and [`Weights::open_model`] say; a size of the config that the weights do not have, a tensor of
/// another shape than the config says, one that is missing, and one that the config has no place for.
pub fn load_decoder(directory: &Path, device: &Device, purpose: Use) -> Result<Decoder> {
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

/// Copies the tokenizer and the chat template from one model's folder to another.
///
/// # Errors
/// A file that cannot be read or written; one that is not there is passed over.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    TOKENIZER_FILES.into_iter().try_for_each(|name| copy(from, to, name))
}

/// Copies what belongs to a model beside its weights and config: the tokenizer, the chat template, generation defaults.
///
/// # Errors
/// As [`copy_tokenizer`].
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    copy_tokenizer(from, to)?;
    copy(from, to, GENERATION_FILE)
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<()> {
    let path = from.join(name);
    if !path.exists() {
        return Ok(());
    }
    write_bytes(&to.join(name), &read_bytes(&path)?)
}
