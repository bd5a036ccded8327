//! What is saved loads again with the same bits, and is what transformers and PEFT would have written.

use std::path::Path;

use serde_json::Value;
use wgtune_engine::{DType, Device};
use wgtune_models::formats::decoder::{load_decoder, save_decoder};
use wgtune_models::formats::safetensors::Weights;
use wgtune_models::peft::{self, ADAPTER_FILE, CONFIG_FILE};

use crate::fixtures::{ADAPTERS, MODELS, base, path};
use crate::{Check, Outcome};

pub fn checks() -> Vec<Check> {
    let model = |name: &'static str| Check::new(format!("{name}: saved and loaded"), move |device| model(device, name));
    let adapter = |name: &'static str| Check::new(format!("{name}: saved and loaded"), move |device| adapter(device, name));
    MODELS.into_iter().map(model).chain(ADAPTERS.map(adapter)).collect()
}

fn model(device: &Device, name: &str) -> Outcome {
    let dtype = if name == "bf16" { DType::BF16 } else { DType::F32 };
    let decoder = load_decoder(&path(name), device)?;
    let folder = tempfile::tempdir()?;
    save_decoder(folder.path(), &decoder, dtype, |_, _| Ok(None))?;

    let loaded = load_decoder(folder.path(), device)?;
    assert_eq!(loaded.config(), decoder.config());
    for ((name, before), (_, after)) in decoder.parameters().iter().zip(loaded.parameters()) {
        assert_eq!(before.to_bytes()?, after.to_bytes()?, "{name}");
    }
    same_weights(&Weights::open_model(folder.path())?, &Weights::open_model(&path(name))?)
}

fn adapter(device: &Device, name: &str) -> Outcome {
    let bare = load_decoder(&path(base(name)), device)?;
    let model = peft::open(&path(name), bare.clone())?;
    let folder = tempfile::tempdir()?;
    model.method.write(&model.decoder, folder.path())?;

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
