//! Llama 1 to 3, SmolLM and all that copy them: RMS norms, rotary positions, a feed-forward layer gated by SiLU.

use serde_json::{Map, Value, json};

use super::{Family, Keys, Names, Projections};
use crate::error::Result;
use crate::formats::json::Object;
use crate::formats::rope::RopeConfig;
use crate::transformer::blueprint::{Blueprint, Positions};

pub(super) static FAMILY: Family =
    Family { model_type: "llama", class_name: "LlamaForCausalLM", keys: KEYS, names: NAMES, read, write };

pub(super) const KEYS: Keys = Keys {
    vocabulary: "vocab_size",
    hidden: "hidden_size",
    inside: "intermediate_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    positions: "max_position_embeddings",
};

pub(super) const NAMES: Names = Names {
    embedding: "model.embed_tokens",
    positions: None,
    blocks: "model.layers",
    attention_norm: "input_layernorm",
    attention: "self_attn",
    projections: Projections::Separate(["q_proj", "k_proj", "v_proj"]),
    head_norms: ["q_norm", "k_norm"],
    output: "o_proj",
    feed_forward_norm: "post_attention_layernorm",
    feed_forward: "mlp",
    gate: Some("gate_proj"),
    up: "up_proj",
    down: "down_proj",
    rescaled: &["k_proj", "v_proj", "down_proj"],
    norm: "model.norm",
    transposed: false,
    optional: "",
    follow: &["rotary_emb.inv_freq"],
};

pub(super) fn read(keys: &Object, plain: Blueprint) -> Result<Blueprint> {
    if !matches!(keys.get("hidden_act").map(Value::as_str), None | Some(Some("silu" | "swish"))) {
        return Err(keys.error("hidden_act", "\"silu\", the only activation known here"));
    }
    let attention_bias = keys.bool("attention_bias")?.unwrap_or(false);
    Ok(Blueprint {
        intermediate_size: keys.required("intermediate_size", "a positive integer", keys.size("intermediate_size")?)?,
        num_key_value_heads: keys.size("num_key_value_heads")?.unwrap_or(plain.num_attention_heads),
        epsilon: keys.positive("rms_norm_eps")?.unwrap_or(1e-6),
        positions: Positions::Rotary(RopeConfig::from_config(keys)?),
        tie_word_embeddings: keys.bool("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: keys.bool("mlp_bias")?.unwrap_or(false),
        ..plain
    })
}

pub(super) fn write(blueprint: &Blueprint) -> Map<String, Value> {
    let mut keys = Map::new();
    let mut put = |key: &str, value: Value| keys.insert(key.into(), value);
    put("num_key_value_heads", blueprint.num_key_value_heads.into());
    put("head_dim", blueprint.head_dim.into());
    put("hidden_act", "silu".into());
    put("rms_norm_eps", blueprint.epsilon.into());
    if let Positions::Rotary(rope) = &blueprint.positions {
        let parameters = rope.to_parameters();
        let is_plain = parameters["rope_type"] == "default";
        put("rope_theta", rope.theta.into());
        put("rope_scaling", if is_plain { Value::Null } else { Value::Object(parameters.clone()) });
        put("rope_parameters", Value::Object(parameters));
    }
    put("attention_bias", blueprint.qkv_bias.into());
    put("attention_dropout", json!(0.0));
    put("mlp_bias", blueprint.mlp_bias.into());
    keys
}
