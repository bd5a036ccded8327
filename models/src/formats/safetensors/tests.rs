use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::error::{Error, Result};

fn info(name: &str, dtype: DType, shape: &[usize]) -> TensorInfo {
    TensorInfo { name: name.into(), dtype, shape: shape.to_vec() }
}

/// Every byte of a tensor is the last letter of its name.
fn letters(tensor: &TensorInfo) -> Result<Cow<'static, [u8]>> {
    let letter = *tensor.name.as_bytes().last().unwrap();
    Ok(vec![letter; tensor.byte_size()].into())
}

fn three() -> Vec<TensorInfo> {
    vec![info("layer.a", DType::BF16, &[3, 5]), info("layer.b", DType::F32, &[2]), info("layer.c", DType::F32, &[0, 4])]
}

fn sharded(directory: &Path) {
    save_model(directory, &three(), 30, letters).unwrap();
    assert!(!directory.join(MODEL_FILE).exists());
}

#[test]
fn what_is_saved_is_read_back_whole_or_sharded() {
    let whole = tempfile::tempdir().unwrap();
    save_model(whole.path(), &three(), 1 << 30, letters).unwrap();
    assert!(!whole.path().join(INDEX_FILE).exists());
    let shards = tempfile::tempdir().unwrap();
    sharded(shards.path());

    for directory in [whole, shards] {
        let weights = Weights::open_model(directory.path()).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["layer.a", "layer.b", "layer.c"]);
        assert_eq!(weights.metadata()["format"], "pt");
        for tensor in three() {
            let view = weights.get(&tensor.name).unwrap();
            assert_eq!((view.dtype, view.shape), (tensor.dtype, &tensor.shape[..]));
            assert_eq!(view.bytes, &*letters(&tensor).unwrap());
        }
    }
}

#[test]
fn the_library_of_the_format_reads_what_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    save(&path, &three(), &BTreeMap::new(), letters).unwrap();
    let bytes = fs::read(&path).unwrap();
    let tensors = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("layer.a").unwrap().data(), [b'a'; 30]);
    assert_eq!(tensors.len(), 3);
}

#[test]
fn elements_convert_to_f32() {
    let values = [1.5f32, -0.25, 1024.0];
    let bytes = |f: fn(f32) -> [u8; 2]| values.iter().flat_map(|&x| f(x)).collect::<Vec<_>>();
    let half = bytes(|x| half::f16::from_f32(x).to_le_bytes());
    let brain = bytes(|x| half::bf16::from_f32(x).to_le_bytes());
    let single: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    // The values were chosen to be exact in all three types.
    assert_eq!(read::widen(DType::F16, &half), values);
    assert_eq!(read::widen(DType::BF16, &brain), values);
    assert_eq!(read::widen(DType::F32, &single), values);
}

#[test]
fn a_failing_source_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let failed = save(&path, &three(), &BTreeMap::new(), |tensor| match tensor.dtype {
        DType::BF16 => Err(Error::Data { message: "lost".into() }),
        _ => letters(tensor),
    });
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_or_unsupported_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let header = r#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0; 8]);
    fs::write(&path, file).unwrap();
    let weights = Weights::open_file(&path).unwrap();
    let message = weights.get("ids").unwrap_err().to_string();
    assert!(message.ends_with("tensor `ids` is of type I64; expected F32, F16, BF16 or U32"));
    let message = weights.get("other").unwrap_err().to_string();
    assert!(message.ends_with("w.safetensors: no tensor `other`"), "{message}");
}

#[test]
fn a_missing_file_and_an_empty_one_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let message = Weights::open_model(folder.path()).unwrap_err().to_string();
    assert!(message.contains("model.safetensors: No such file"), "{message}");
    fs::write(folder.path().join(MODEL_FILE), b"").unwrap();
    let message = Weights::open_model(folder.path()).unwrap_err().to_string();
    assert!(message.contains("model.safetensors: truncated: 0 bytes"), "{message}");
}

/// Opens a sharded model after `damage`, and returns the error.
fn damaged(damage: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    sharded(folder.path());
    damage(folder.path());
    Weights::open_model(folder.path()).unwrap_err().to_string()
}

fn edit_index(folder: &Path, edit: impl FnOnce(String) -> String) {
    let path = folder.join(INDEX_FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, edit(text)).unwrap();
}

const SECOND: &str = "model-00002-of-00002.safetensors";

#[test]
fn a_damaged_shard_or_index_is_an_error_that_names_it() {
    let message = damaged(|folder| fs::remove_file(folder.join(SECOND)).unwrap());
    assert!(message.contains(SECOND), "{message}");

    let message = damaged(|folder| {
        edit_index(folder, |text| text.replace("\"layer.b\"", "\"layer.z\""));
    });
    assert!(message.contains("tensor `layer.z` should be in model-00002"), "{message}");

    let message = damaged(|folder| {
        edit_index(folder, |text| text.replace(",\n    \"layer.c\": \"model-00002-of-00002.safetensors\"", ""));
    });
    assert!(message.contains("tensor `layer.c` of") && message.contains("is not in the index"));

    let message = damaged(|folder| edit_index(folder, |text| text.replace(SECOND, "../x")));
    assert!(message.contains("`weight_map.layer.b` is \"../x\""), "{message}");

    let message = damaged(|folder| {
        fs::copy(folder.join("model-00001-of-00002.safetensors"), folder.join(SECOND)).unwrap();
    });
    assert!(message.contains("tensor `layer.a` is also in"), "{message}");
}

#[test]
#[cfg(unix)]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MODEL_FILE);
    let refused = || Weights::open_model(folder.path()).unwrap_err().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(refused().ends_with("model.safetensors: a pipe, a device or a socket; expected a file"), "{}", refused());
    fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(refused().ends_with("a pipe, a device or a socket; expected a file"), "{}", refused());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refused().ends_with("model.safetensors: a folder; expected a file"), "{}", refused());
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"").unwrap();
    assert!(refused().contains("truncated: 0 bytes"), "{}", refused());
    assert!(Weights::open_file(Path::new("/dev/zero")).unwrap_err().to_string().starts_with("/dev/zero: a pipe, a device"));
}
