//! What is saved loads again with the same bits, and is what transformers and PEFT would have written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use wgtune_engine::{DType, Device};
use wgtune_models::formats::safetensors::{self, TensorInfo, Weights};
use wgtune_models::peft::{self, ADAPTER_FILE, CONFIG_FILE};
use wgtune_models::transformer::{load_decoder, save_decoder};

use crate::fixtures::{LORAS, MODELS, base, path, tuned};
use crate::{Check, Outcome};

pub fn checks() -> Vec<Check> {
    let model = |name: &'static str| Check::new(format!("{name}: saved and loaded"), move |device| model(device, name));
    let adapter = |name: &'static str| Check::new(format!("{name}: saved and loaded"), move |device| adapter(device, name));
    let old = Check::new("gpt2: files of old names", old_names);
    // Of a network that wrote a prefix there is no word in what is written.
    let kept = tuned().filter(|name| !name.contains("projection"));
    MODELS.into_iter().map(model).chain(LORAS.into_iter().chain(["lora_rslora"]).chain(kept).map(adapter)).chain([old]).collect()
}

/// As the first files of GPT-2 are: names without what all begin with, and beside them what follows from the rest.
fn old_names(device: &Device) -> Outcome {
    let weights = Weights::open_model(&path("gpt2"))?;
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for name in weights.names() {
        let view = weights.get(name)?;
        tensors.insert(name.trim_start_matches("transformer.").into(), (view.shape.to_vec(), view.bytes.to_vec()));
    }
    let zeros = |shape: [usize; 4]| (shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]);
    tensors.insert("h.0.attn.bias".into(), zeros([1, 1, 24, 24]));
    tensors.insert("lm_head.weight".into(), tensors["wte.weight"].clone());
    let folder = tempfile::tempdir()?;
    std::fs::copy(path("gpt2/config.json"), folder.path().join("config.json"))?;
    let info = |(name, (shape, _)): (&String, &(Vec<usize>, _))| TensorInfo {
        name: name.clone(),
        dtype: DType::F32,
        shape: shape.clone(),
    };
    let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let file = folder.path().join("model.safetensors");
    safetensors::save(&file, &infos, &BTreeMap::new(), |info| Ok(Cow::Borrowed(&tensors[&info.name].1)))?;

    let (old, new) = (load_decoder(folder.path(), device)?, load_decoder(&path("gpt2"), device)?);
    for ((name, old), (_, new)) in old.parameters().into_iter().zip(new.parameters()) {
        assert_eq!(old.to_bytes()?, new.to_bytes()?, "{name}");
    }
    Ok(())
}

fn model(device: &Device, name: &str) -> Outcome {
    let dtype = if name == "bf16" { DType::BF16 } else { DType::F32 };
    let decoder = load_decoder(&path(name), device)?;
    let folder = tempfile::tempdir()?;
    save_decoder(folder.path(), &decoder, dtype, |_, _| Ok(None))?;

    let loaded = load_decoder(folder.path(), device)?;
    assert_eq!(loaded.blueprint(), decoder.blueprint());
    for ((name, before), (_, after)) in decoder.parameters().iter().zip(loaded.parameters()) {
        assert_eq!(before.to_bytes()?, after.to_bytes()?, "{name}");
    }
    same_weights(&Weights::open_model(folder.path())?, &Weights::open_model(&path(name))?)
}

fn adapter(device: &Device, name: &str) -> Outcome {
    let bare = load_decoder(&path(base(name)), device)?;
    let model = peft::open(&path(name), bare.clone())?;
    let folder = tempfile::tempdir()?;
    model.write(None, folder.path())?;

    let loaded = peft::open(folder.path(), bare)?;
    for ((name, before), (_, after)) in model.parameters().iter().zip(loaded.parameters()) {
        assert_eq!(before.to_bytes()?, after.to_bytes()?, "{name}");
    }
    let weights = |directory: &Path| Weights::open_file(&directory.join(ADAPTER_FILE));
    same_weights(&weights(folder.path())?, &weights(&path(name))?)?;
    same_settings(folder.path(), &path(name))
}

/// The same names, types, shapes, bits and metadata.
fn same_weights(ours: &Weights, theirs: &Weights) -> Outcome {
    assert!(
        ours.names().eq(theirs.names()),
        "{:?}, expected {:?}",
        ours.names().collect::<Vec<_>>(),
        theirs.names().collect::<Vec<_>>()
    );
    for name in ours.names() {
        let (ours, theirs) = (ours.get(name)?, theirs.get(name)?);
        assert_eq!((ours.dtype, ours.shape), (theirs.dtype, theirs.shape), "{name}");
        assert!(ours.bytes == theirs.bytes, "{name}: other bits");
    }
    assert_eq!(ours.metadata(), theirs.metadata());
    Ok(())
}

/// Every key that we write is one that PEFT writes, with its value.
fn same_settings(ours: &Path, theirs: &Path) -> Outcome {
    let read = |directory: &Path| -> Result<Value, libtest_mimic::Failed> {
        Ok(serde_json::from_str(&std::fs::read_to_string(directory.join(CONFIG_FILE))?)?)
    };
    let (ours, theirs) = (read(ours)?, read(theirs)?);
    for (key, value) in ours.as_object().ok_or("an object")? {
        let expected = theirs.get(key).ok_or_else(|| format!("PEFT writes no `{key}`"))?;
        let same = if value.is_number() { value.as_f64() == expected.as_f64() } else { value == expected };
        assert!(same, "`{key}` is {value}; PEFT writes {expected}");
    }
    Ok(())
}
