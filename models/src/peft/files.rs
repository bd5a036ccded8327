//! The folder of an adapter in PEFT's layout: `adapter_config.json` beside `adapter_model.safetensors`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use wgtune_engine::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::formats::files::{read_bytes, write_bytes};
use crate::formats::model_card::CARD_FILE;
use crate::formats::safetensors::{self, TensorInfo, Weights};
use crate::hash::xxh3;

/// The name of an adapter's weight file.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// The name of an adapter's config.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The names of what an adapter is saved as, its model card included.
pub const ADAPTER_FILES: [&str; 3] = [ADAPTER_FILE, CONFIG_FILE, CARD_FILE];

/// What PEFT puts before a model's own tensor names.
pub(super) const PREFIX: &str = "base_model.model.";

/// A hash of the adapter in a folder: of its config and its weights.
///
/// # Errors
/// A file that cannot be read.
pub fn fingerprint(directory: &Path) -> Result<String> {
    Ok(xxh3([read_bytes(&directory.join(CONFIG_FILE))?, read_bytes(&directory.join(ADAPTER_FILE))?]))
}

/// Writes an adapter's config (keys sorted), its tensors as f32, and a model card where there is none.
pub(super) fn write(directory: &Path, config: &Value, tensors: &BTreeMap<String, Tensor>, card: &str) -> Result<()> {
    let info =
        |(name, tensor): (&String, &Tensor)| TensorInfo { name: name.clone(), dtype: DType::F32, shape: tensor.shape().to_vec() };
    let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::save(&directory.join(ADAPTER_FILE), &infos, &metadata, |info| Ok(Cow::Owned(tensors[&info.name].to_bytes()?)))?;
    let path = directory.join(CARD_FILE);
    // Somebody may have written more on it.
    if !path.exists() {
        write_bytes(&path, card.as_bytes())?;
    }
    write_bytes(&directory.join(CONFIG_FILE), format!("{config:#}\n").as_bytes())
}

/// A tensor of an adapter's weights as f32, which must be of this shape and finite.
pub(super) fn read(weights: &Weights, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
    let error = |message: String| Err(Error::Weights { path: weights.path().to_path_buf(), message });
    let view = weights.get(name)?;
    if view.shape != shape {
        let found = view.shape;
        return error(format!("tensor `{name}` has shape {found:?}, and this model needs {shape:?}: an adapter of another base"));
    }
    let values = view.to_f32();
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => error(format!("tensor `{name}` is {} at element {at}: expected finite numbers", values[at])),
        None => Ok(device.tensor(&values, shape)),
    }
}
