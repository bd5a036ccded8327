use serde_json::{Value, json};

use super::*;
use crate::formats::rope::RopeScaling;

fn read(json: Value) -> Result<Blueprint> {
    Blueprint::from_json(Path::new("config.json"), json)
}

fn base(model_type: &str) -> Value {
    json!({
        "model_type": model_type, "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    })
}

fn with(model_type: &str, changes: Value) -> Value {
    let mut config = base(model_type);
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn families_differ_in_biases_norms_and_head_size() {
    let traits = |model_type| {
        let config = read(base(model_type)).unwrap();
        (config.head_dim, config.qkv_bias, config.output_bias, config.qk_norm)
    };
    assert_eq!(traits("llama"), (8, false, false, false));
    assert_eq!(traits("mistral"), (8, false, false, false));
    assert_eq!(traits("qwen2"), (8, true, false, false));
    assert_eq!(traits("qwen3"), (128, false, false, true));
    let biased = read(with("llama", json!({"attention_bias": true}))).unwrap();
    assert!(biased.qkv_bias && biased.output_bias);
}

#[test]
fn gpt2_is_told_by_its_own_keys() {
    let gpt2 = |changes: Value| {
        let mut config =
            json!({"model_type": "gpt2", "vocab_size": 100, "n_embd": 64, "n_layer": 3, "n_head": 8, "n_positions": 32});
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        read(config)
    };
    let config = gpt2(json!({})).unwrap();
    assert_eq!((config.intermediate_size, config.head_dim, config.num_key_value_heads), (256, 8, 8));
    assert_eq!((config.norm, config.activation, config.epsilon), (NormKind::Layer, Activation::GeluTanh, 1e-5));
    assert!(config.tie_word_embeddings && config.qkv_bias && config.output_bias && config.mlp_bias);
    assert_eq!(read(config.to_json()).unwrap(), config);
    assert_eq!((config.longest_text(), config.may_go_beyond()), (Some(32), false));
    for (changes, expected) in [
        (json!({"n_head": 7}), "`n_head` is 7"),
        (json!({"n_layer": null}), "`n_layer` is null"),
        (json!({"activation_function": "tanh"}), "`activation_function` is \"tanh\"; expected one of silu, gelu, gelu_new, relu"),
        (json!({"scale_attn_by_inverse_layer_idx": true}), "`scale_attn_by_inverse_layer_idx` is true"),
    ] {
        let message = gpt2(changes).unwrap_err().to_string();
        assert!(message.contains(expected), "{message} should contain {expected}");
    }
}

#[test]
fn windows_follow_each_familys_keys() {
    let windows = |model_type, changes| read(with(model_type, changes)).unwrap().windows;
    assert_eq!(windows("llama", json!({"sliding_window": 7})), [None; 3]);
    assert_eq!(windows("mistral", json!({})), [Some(4096); 3]);
    assert_eq!(windows("mistral", json!({"sliding_window": null})), [None; 3]);
    let qwen = json!({"sliding_window": 7, "use_sliding_window": true, "max_window_layers": 1});
    assert_eq!(windows("qwen2", qwen), [None, Some(7), Some(7)]);
    assert_eq!(windows("qwen2", json!({"sliding_window": 7})), [None; 3]);
    let listed = json!({"sliding_window": 7, "use_sliding_window": true,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]});
    assert_eq!(windows("qwen3", listed), [Some(7), None, Some(7)]);
}

#[test]
fn rope_is_read_in_both_spellings() {
    let old = read(with(
        "llama",
        json!({"rope_theta": 5e5, "rope_scaling":
        {"type": "linear", "factor": 2.0}}),
    ));
    let new = read(with(
        "llama",
        json!({"rope_parameters":
        {"rope_type": "linear", "factor": 2, "rope_theta": 500000}}),
    ));
    let rope = |read: Result<Blueprint>| match read.unwrap().positions {
        Positions::Rotary(rope) => rope,
        Positions::Learned => panic!("a Llama's positions are rotary"),
    };
    let (old, new) = (rope(old), rope(new));
    assert_eq!(old, new);
    assert_eq!(old.theta, 5e5);
    assert_eq!(old.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn ids_may_be_one_or_many() {
    let ids = |value| read(with("llama", json!({"eos_token_id": value}))).unwrap().eos_token_ids;
    assert_eq!(ids(json!(2)), [2]);
    assert_eq!(ids(json!([2, 5])), [2, 5]);
    assert!(ids(Value::Null).is_empty());
}

#[test]
fn a_saved_config_reads_back_the_same() {
    let ropes = [
        json!({"rope_type": "default", "rope_theta": 1e6}),
        json!({"rope_type": "dynamic", "factor": 2.0}),
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
        json!({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "truncate": false}),
    ];
    for model_type in ["llama", "mistral", "qwen2", "qwen3"] {
        for rope in &ropes {
            let config = read(with(
                model_type,
                json!({
                    "rope_parameters": rope, "tie_word_embeddings": true, "dtype": "bfloat16",
                    "eos_token_id": [2, 3], "bos_token_id": 1, "sliding_window": 9, "head_dim": 6,
                    "use_sliding_window": true, "max_window_layers": 1, "initializer_range": 0.5,
                }),
            ))
            .unwrap();
            assert_eq!(read(config.to_json()).unwrap(), config);
            // Older readers know neither `rope_parameters` nor `layer_types`.
            let mut older = config.to_json();
            older.as_object_mut().unwrap().remove("rope_parameters");
            older.as_object_mut().unwrap().remove("layer_types");
            assert_eq!(read(older).unwrap(), config);
        }
    }
}

#[test]
fn a_folder_is_saved_and_its_generation_config_adds_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = read(with("llama", json!({"eos_token_id": 2}))).unwrap();
    config.save(folder.path()).unwrap();
    assert_eq!(Blueprint::open(folder.path()).unwrap(), config);
    let generation = folder.path().join("generation_config.json");
    std::fs::write(generation, r#"{"eos_token_id": [2, 7], "pad_token_id": 9}"#).unwrap();
    config.eos_token_ids = vec![2, 7];
    config.pad_token_id = Some(9);
    assert_eq!(Blueprint::open(folder.path()).unwrap(), config);
}

#[test]
fn impossible_configs_name_the_key_and_the_value() {
    let cases = [
        (json!({"model_type": "gpt3"}), "`model_type` is \"gpt3\""),
        (json!({"model_type": null}), "`model_type` is null"),
        (json!({"num_key_value_heads": 3}), "`num_key_value_heads` is 3"),
        (json!({"num_attention_heads": 0}), "`num_attention_heads` is 0"),
        (json!({"num_attention_heads": 7}), "`num_attention_heads` is 7"),
        (json!({"vocab_size": 0}), "`vocab_size` is 0"),
        (json!({"hidden_size": -64}), "`hidden_size` is -64"),
        (json!({"hidden_size": 64.5}), "`hidden_size` is 64.5"),
        (json!({"num_hidden_layers": null}), "`num_hidden_layers` is null"),
        (json!({"head_dim": 7}), "`head_dim` is 7"),
        (json!({"rms_norm_eps": 0.0}), "`rms_norm_eps` is 0.0"),
        (json!({"rms_norm_eps": "small"}), "`rms_norm_eps` is \"small\""),
        (json!({"hidden_act": "gelu"}), "`hidden_act` is \"gelu\""),
        (json!({"rope_scaling": {"type": "magic"}}), "`rope_scaling.type` is \"magic\""),
        (json!({"rope_scaling": {"type": "linear"}}), "`rope_scaling.factor` is missing"),
        (json!({"rope_parameters": 3}), "`rope_parameters` is 3"),
        (json!({"partial_rotary_factor": 0.5}), "`partial_rotary_factor` is 0.5"),
        (json!({"dtype": "int8"}), "`dtype` is \"int8\""),
        (json!({"quantization_config": {}}), "`quantization_config` is {}"),
        (json!({"eos_token_id": "</s>"}), "`eos_token_id` is \"</s>\""),
    ];
    for (changes, expected) in cases {
        let message = read(with("llama", changes)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message} should contain {expected}");
    }
    assert!(read(json!([])).is_err());
}

#[test]
fn the_longest_text_is_the_models_own_unless_its_rope_is_scaled() {
    let longest = |rope: Value| read(with("llama", json!({"rope_scaling": rope}))).unwrap().longest_text();
    assert_eq!(longest(Value::Null), Some(128));
    assert_eq!(longest(json!({"rope_type": "linear", "factor": 4.0})), Some(512));
    assert_eq!(longest(json!({"rope_type": "dynamic", "factor": 2.0})), None);
    assert_eq!(longest(json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})), Some(256));
    // Models with this one state the stretched length.
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    assert_eq!(longest(llama3), Some(128));
    let error = read(base("llama")).unwrap().check_length("the prompt", 129).unwrap_err().to_string();
    assert_eq!(error, "the prompt is 129 tokens long, and the model was made for 128 at most");
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_made_of_them() {
    let error = |changes| read(with("llama", changes)).unwrap_err().to_string();
    let message = error(json!({"num_hidden_layers": 1_000_000_000}));
    assert_eq!(message, "config.json: `num_hidden_layers` is 1000000000; expected at most 65536");
    let message = error(json!({"head_dim": u32::MAX - 1}));
    assert!(message.contains("`head_dim` is 4294967294; expected at most 65536"), "{message}");
    let message = error(json!({"hidden_size": u32::MAX - 1, "num_attention_heads": 1, "num_key_value_heads": 1}));
    assert!(message.contains("`head_dim` is missing") && message.contains("it is 4294967294"), "{message}");
    // Each of them alone, and all of them.
    let sizes = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "sliding_window",
        "max_window_layers",
        "num_hidden_layers",
    ];
    let mut all = json!({});
    for key in sizes {
        all[key] = u32::MAX.into();
        for changes in [json!({key: u32::MAX}), json!({key: u64::MAX}), json!({key: 1e308}), all.clone()] {
            for family in ["llama", "mistral", "qwen2", "qwen3"] {
                if let Err(error) = read(with(family, changes.clone())) {
                    assert!(matches!(error, Error::Value { .. }), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_rope_whose_angles_are_not_finite_is_refused_by_its_key() {
    for (key, value) in [
        ("rope_theta", json!(1e-300)),
        ("rope_scaling", json!({"type": "linear", "factor": 1e-308})),
        ("rope_scaling", json!({"type": "dynamic", "factor": 1e-308})),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 1e-308, "original_max_position_embeddings": 1})),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1e300})),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0})),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 1e308, "mscale": 1.0, "mscale_all_dim": -1e308})),
        (
            "rope_parameters",
            json!({"rope_type": "llama3", "factor": 1e-308, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 1}),
        ),
    ] {
        let changes = json!({key: value});
        match read(with("llama", changes.clone())) {
            Err(error) => assert!(error.to_string().contains(&format!("`{key}` is")), "{error}"),
            Ok(config) => {
                let Positions::Rotary(rope) = &config.positions else { panic!("a Llama's positions are rotary") };
                let (frequencies, factor) = rope_frequencies(rope, config.head_dim, 128, 1 << 20);
                assert!(factor.is_finite() && frequencies.iter().all(|f| f.is_finite()), "{changes}: {frequencies:?} {factor}");
            }
        }
    }
    let error = read(with("llama", json!({"rope_theta": 1e-308, "head_dim": 128}))).unwrap_err().to_string();
    assert_eq!(error, "config.json: `rope_theta` is 1e-308; expected numbers that give finite angles");
}
