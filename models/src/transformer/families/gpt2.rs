//! GPT-2: layer norms, learned positions, a plain feed-forward layer of GELU, and one projection for queries, keys and values. Its
//! linear layers are stored as those of a convolution of width 1, [inputs, outputs].

use serde_json::{Map, Value, json};

use super::{Family, Keys, Names, Projections};
use crate::error::Result;
use crate::formats::json::Object;
use crate::nn::NormKind;
use crate::transformer::blueprint::{Activation, Blueprint, Positions};

pub(super) static FAMILY: Family = Family {
    model_type: "gpt2",
    class_name: "GPT2LMHeadModel",
    keys: Keys {
        vocabulary: "vocab_size",
        hidden: "n_embd",
        inside: "n_inner",
        layers: "n_layer",
        heads: "n_head",
        positions: "n_positions",
    },
    names: Names {
        embedding: "transformer.wte",
        positions: Some("transformer.wpe"),
        blocks: "transformer.h",
        attention_norm: "ln_1",
        attention: "attn",
        projections: Projections::Fused("c_attn"),
        head_norms: ["q_norm", "k_norm"],
        output: "c_proj",
        feed_forward_norm: "ln_2",
        feed_forward: "mlp",
        gate: None,
        up: "c_fc",
        down: "c_proj",
        rescaled: &["c_attn", "mlp.c_proj"],
        norm: "transformer.ln_f",
        transposed: true,
        optional: "transformer.",
        // The mask, which is the same for every model.
        follow: &[".attn.bias", ".attn.masked_bias"],
    },
    read,
    write,
};

fn read(keys: &Object, plain: Blueprint) -> Result<Blueprint> {
    for (key, expected) in
        [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false), ("add_cross_attention", false)]
    {
        if keys.bool(key)?.is_some_and(|value| value != expected) {
            return Err(keys.error(key, format!("{expected}: nothing else is known here")));
        }
    }
    let activation = keys.string("activation_function")?.unwrap_or("gelu_new".into());
    Ok(Blueprint {
        intermediate_size: keys.size("n_inner")?.unwrap_or(plain.hidden_size.saturating_mul(4)),
        norm: NormKind::Layer,
        epsilon: keys.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        positions: Positions::Learned,
        activation: Activation::named(&activation)
            .ok_or_else(|| keys.error("activation_function", format!("one of {}", Activation::known())))?,
        tie_word_embeddings: keys.bool("tie_word_embeddings")?.unwrap_or(true),
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        ..plain
    })
}

fn write(blueprint: &Blueprint) -> Map<String, Value> {
    let keys = json!({
        "n_ctx": blueprint.max_position_embeddings,
        "activation_function": blueprint.activation.name(),
        "layer_norm_epsilon": blueprint.epsilon,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "scale_attn_weights": true,
        "scale_attn_by_inverse_layer_idx": false,
        "add_cross_attention": false,
    });
    keys.as_object().expect("an object").clone()
}
