//! Mistral: Llama with a sliding window.

use super::{Family, llama};
use crate::transformer::blueprint::Blueprint;

pub(super) static FAMILY: Family = Family {
    model_type: "mistral",
    class_name: "MistralForCausalLM",
    keys: llama::KEYS,
    names: llama::NAMES,
    read: |keys, plain| {
        // An absent key, unlike `null`, means the first Mistral's window.
        let window = if keys.map.contains_key("sliding_window") { keys.size("sliding_window")? } else { Some(4096) };
        Ok(Blueprint { windows: plain.windowed(keys, window, 0)?, ..llama::read(keys, plain)? })
    },
    write: |blueprint| {
        let mut keys = llama::write(blueprint);
        keys.insert("sliding_window".into(), blueprint.window().into());
        keys
    },
};
