//! The formats on what transformers and PEFT wrote: the fixtures beside this file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wgtune_engine::DType;
use wgtune_models::Error;
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::safetensors::Weights;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
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
