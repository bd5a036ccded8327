//! The formats on what transformers and PEFT wrote: the fixtures beside this file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wgtune_engine::DType;
use wgtune_models::Error;
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::safetensors::Weights;
use wgtune_models::transformer::Blueprint;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The folders that hold a model.
fn models() -> Vec<PathBuf> {
    let mut models: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.json").exists())
        .collect();
    models.sort();
    assert!(models.len() > 5, "{models:?}");
    models
}

#[test]
fn every_fixtures_config_fits_its_weights() {
    for model in models() {
        let config = Blueprint::open(&model).unwrap();
        let weights = Weights::open_model(&model).unwrap();
        let (head, kv_heads) = (config.head_dim, config.num_key_value_heads);
        let shape = |name: &str| weights.get(name).unwrap().shape.to_vec();
        let hidden = config.hidden_size;
        assert_eq!(shape("model.embed_tokens.weight"), [config.vocab_size, hidden], "{model:?}");
        assert_eq!(shape("model.layers.0.self_attn.k_proj.weight"), [kv_heads * head, hidden]);
        assert_eq!(shape("model.layers.0.mlp.up_proj.weight"), [config.intermediate_size, hidden]);
        let has = |name: &str| weights.contains(&format!("model.layers.0.{name}"));
        assert_eq!(has("self_attn.q_proj.bias"), config.qkv_bias, "{model:?}");
        assert_eq!(has("self_attn.o_proj.bias"), config.output_bias, "{model:?}");
        assert_eq!(has("mlp.up_proj.bias"), config.mlp_bias, "{model:?}");
        assert_eq!(has("self_attn.q_norm.weight"), config.qk_norm, "{model:?}");
        assert_eq!(weights.contains("lm_head.weight"), !config.tie_word_embeddings, "{model:?}");
    }
}

#[test]
fn shards_in_bfloat16_open_by_their_index() {
    let weights = Weights::open_model(&fixtures().join("bf16")).unwrap();
    let embedding = weights.get("model.embed_tokens.weight").unwrap();
    assert_eq!(embedding.dtype, DType::BF16);
    assert!(embedding.to_f32().iter().all(|x| x.abs() < 10.0));
}

#[test]
fn conversations_render_as_transformers_renders_them() {
    let text = std::fs::read_to_string(fixtures().join("chat/cases.json")).unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    let variables: BTreeMap<_, _> =
        ["bos_token", "eos_token"].map(|key| (key.to_string(), fixture[key].as_str().unwrap().to_string())).into();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let source = fixture["templates"][case["template"].as_str().unwrap()].as_str().unwrap();
        let template = ChatTemplate::new(Path::new(name), source, variables.clone()).unwrap();
        let messages = case["messages"].as_array().unwrap();
        let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        match template.render(messages, tools, prompt) {
            Ok(rendered) => assert_eq!(rendered.text, case["expected"].as_str().unwrap(), "{name}"),
            Err(Error::ChatTemplate { message, .. }) => {
                let expected = case["error"].as_str().unwrap_or_else(|| panic!("{name}: {message}"));
                assert!(message.contains(expected), "{name}: {message}");
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
}
