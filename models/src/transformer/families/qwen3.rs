//! Qwen 3: Llama with an RMS norm on each head's queries and keys.

use super::{Family, llama, qwen2};
use crate::transformer::blueprint::Blueprint;

pub(super) static FAMILY: Family = Family {
    model_type: "qwen3",
    class_name: "Qwen3ForCausalLM",
    keys: llama::KEYS,
    names: qwen2::NAMES,
    read: |keys, plain| {
        Ok(Blueprint {
            // The width that transformers takes for Qwen 3 whatever the other sizes are.
            head_dim: keys.size("head_dim")?.unwrap_or(128),
            windows: qwen2::windows(keys, &plain)?,
            qk_norm: true,
            ..llama::read(keys, plain)?
        })
    },
    write: qwen2::write,
};
