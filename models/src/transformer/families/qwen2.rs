//! Qwen 2 and 2.5: Llama with biases on query, key and value, and a window in the upper layers.

use serde_json::{Map, Value};

use super::{Family, Names, llama};
use crate::error::Result;
use crate::formats::json::Object;
use crate::transformer::blueprint::{Blueprint, layer_type};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen2",
    class_name: "Qwen2ForCausalLM",
    keys: llama::KEYS,
    names: NAMES,
    read: |keys, plain| {
        Ok(Blueprint { windows: windows(keys, &plain)?, qkv_bias: true, output_bias: false, ..llama::read(keys, plain)? })
    },
    write,
};

/// PEFT rescales queries in the place of keys here.
pub(super) const NAMES: Names = Names { rescaled: &["q_proj", "v_proj", "down_proj"], ..llama::NAMES };

pub(super) fn windows(keys: &Object, plain: &Blueprint) -> Result<Vec<Option<usize>>> {
    let used = keys.bool("use_sliding_window")?.unwrap_or(false);
    let first = keys.optional("max_window_layers", "a number of layers", Value::as_u64)?;
    plain.windowed(keys, keys.size("sliding_window")?.filter(|_| used), first.unwrap_or(28) as usize)
}

pub(super) fn write(blueprint: &Blueprint) -> Map<String, Value> {
    let mut keys = llama::write(blueprint);
    let first = blueprint.windows.iter().position(Option::is_some);
    let mut put = |key: &str, value: Value| keys.insert(key.into(), value);
    put("use_sliding_window", first.is_some().into());
    put("sliding_window", blueprint.window().into());
    put("max_window_layers", first.unwrap_or(blueprint.num_hidden_layers).into());
    put("layer_types", blueprint.windows.iter().copied().map(layer_type).collect());
    keys
}
