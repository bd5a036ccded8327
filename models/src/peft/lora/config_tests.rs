use super::*;

const Q0: &str = "model.layers.0.self_attn.q_proj";
const DOWN3: &str = "model.layers.3.mlp.down_proj";

fn read(json: Value) -> Result<LoraConfig> {
    LoraConfig::from_json(Path::new(CONFIG_FILE), json)
}

#[test]
fn tensors_have_pefts_names() {
    assert_eq!(tensor_names(Q0, false)[1], "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
    assert_eq!(tensor_names("model.embed_tokens", true)[0], "base_model.model.model.embed_tokens.lora_embedding_A");
    assert_eq!(saved_name("lm_head.weight"), "base_model.model.lm_head.weight");
}

#[test]
fn a_module_is_saved_where_its_name_ends_so_or_that_of_one_around_it() {
    let config = LoraConfig { saved: vec!["norm".into(), "1.mlp".into()], ..LoraConfig::default() };
    for name in ["model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.1.mlp.up_proj.weight"] {
        assert!(config.saves(name), "{name}");
    }
    for name in ["model.layers.0.mlp.up_proj.weight", "model.normal.weight", "lm_head.weight", "weight"] {
        assert!(!config.saves(name), "{name}");
    }
}

#[test]
fn a_saved_adapter_reads_back_the_same_with_sorted_keys() {
    let config = LoraConfig {
        rank: 4,
        alpha: 32.0,
        dropout: 0.25,
        targets: Targets::AllLinear,
        exclude: vec!["down_proj".into()],
        layers: Some(vec![0, 2]),
        rank_stabilised: true,
        rank_pattern: BTreeMap::from([("q_proj".into(), 16)]),
        alpha_pattern: BTreeMap::from([("q_proj".into(), 64.0)]),
        init: Init::Gaussian,
        saved: vec!["lm_head".into()],
        base_model: Some("some/model".into()),
        ..LoraConfig::default()
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(CONFIG_FILE), config.to_json().to_string()).unwrap();
    assert_eq!(LoraConfig::open(folder.path()).unwrap(), config);
    let json = config.to_json();
    assert!(json.as_object().unwrap().keys().is_sorted());
}

#[test]
fn targets_layers_and_exclusions_choose_modules() {
    let adapts = |changes: Value, module: &str| {
        let mut json = json!({"peft_type": "LORA", "target_modules": "all-linear"});
        json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        read(json).unwrap().adapts(module)
    };
    assert!(adapts(json!({}), Q0) && adapts(json!({}), DOWN3) && !adapts(json!({}), "lm_head"));
    let named = json!({"target_modules": ["q_proj", "v_proj"]});
    assert!(adapts(named.clone(), Q0) && !adapts(named, DOWN3));
    assert!(!adapts(json!({"target_modules": ["proj"]}), Q0));
    assert!(adapts(json!({"target_modules": [Q0]}), Q0));
    assert!(!adapts(json!({"exclude_modules": ["q_proj"]}), Q0));
    let layers = json!({"layers_to_transform": [3]});
    assert!(!adapts(layers.clone(), Q0) && adapts(layers, DOWN3));
    assert!(adapts(json!({"layers_to_transform": 0}), Q0));
}

#[test]
fn scales_follow_patterns_and_rslora() {
    let config = read(json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "q_proj",
        "rank_pattern": {"q_proj": 16}, "alpha_pattern": {"down_proj": 2}}))
    .unwrap();
    assert_eq!((config.rank_of(Q0), config.rank_of(DOWN3)), (16, 4));
    assert_eq!((config.scale_of(Q0), config.scale_of(DOWN3)), (0.5, 0.5));
    let stabilised = LoraConfig { rank_stabilised: true, ..config };
    assert_eq!((stabilised.scale_of(Q0), stabilised.scale_of(DOWN3)), (2.0, 1.0));
}

#[test]
fn what_cannot_be_honoured_is_an_error_that_names_the_key() {
    let cases = [
        (json!({"r": 0}), "`r` is 0"),
        (json!({"rank_pattern": {"q_proj": 0}}), "`rank_pattern.q_proj` is 0"),
        (json!({"peft_type": "IA3"}), "`peft_type` is \"IA3\""),
        (json!({"peft_type": null}), "`peft_type` is null"),
        (json!({"bias": "most"}), "`bias` is \"most\""),
        (json!({"init_lora_weights": "pissa"}), "`init_lora_weights` is \"pissa\""),
        (json!({"init_lora_weights": "pissa_niter_4"}), "`init_lora_weights` is \"pissa_niter_4\""),
        (json!({"init_lora_weights": "olora"}), "a start that leaves the base's weights as they are"),
        (json!({"init_lora_weights": "loftq"}), "`init_lora_weights` is \"loftq\""),
        (json!({"init_lora_weights": "corda"}), "`init_lora_weights` is \"corda\""),
        (json!({"init_lora_weights": "lora_ga"}), "`init_lora_weights` is \"lora_ga\""),
        (json!({"alora_invocation_tokens": [1, 2]}), "`alora_invocation_tokens` is [1,2]"),
        (json!({"kasa_config": {"beta": 1e-4}}), "`kasa_config` is {\"beta\":0.0001}"),
        (json!({"use_bdlora": {"nblocks": 2}}), "`use_bdlora` is"),
        (json!({"arrow_config": {"top_k": 3}}), "`arrow_config` is"),
        (json!({"velora_config": {"rank": 1}}), "`velora_config` is"),
        (json!({"monteclora_config": {"samples": 4}}), "`monteclora_config` is"),
        (json!({"use_qalora": true}), "`use_qalora` is true"),
        (json!({"megatron_config": {"fp16": true}}), "`megatron_config` is"),
        (json!({"lora_bias": true}), "`lora_bias` is true"),
        (json!({"of_the_future": 1}), "`of_the_future` is 1; expected nothing: what it says is not understood here"),
        (json!({"modules_to_save": [""]}), "`modules_to_save` is [\"\"]"),
        (json!({"ensure_weight_tying": true}), "`ensure_weight_tying` is true"),
        (json!({"target_modules": []}), "`target_modules` is []"),
        (json!({"target_modules": ".*(q_proj"}), "`target_modules` is \".*(q_proj\""),
        (json!({"lora_dropout": 1.0}), "`lora_dropout` is 1.0"),
    ];
    for (changes, expected) in cases {
        let mut json = json!({"peft_type": "LORA", "target_modules": ["q_proj"], "unknown": null});
        json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let message = read(json).unwrap_err().to_string();
        assert!(message.contains(expected), "{message} should contain {expected}");
    }
}

#[test]
fn the_names_of_patterns_are_expressions_as_in_peft() {
    let config = read(json!({"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"], "r": 8, "lora_alpha": 8,
        "rank_pattern": {"layers\\.[01]\\..*_proj": 2, "v_proj": 4}, "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 6}}));
    let config = config.unwrap();
    for (module, rank, scale) in [
        ("model.layers.0.self_attn.q_proj", 2, 4.0),
        ("model.layers.1.self_attn.q_proj", 2, 3.0),
        ("model.layers.2.self_attn.q_proj", 8, 1.0),
        ("model.layers.2.self_attn.v_proj", 4, 2.0),
    ] {
        assert_eq!((config.rank_of(module), config.scale_of(module)), (rank, scale), "{module}");
    }
    let broken = read(json!({"peft_type": "LORA", "target_modules": ["q_proj"], "rank_pattern": {"(q_proj": 2}}));
    assert!(broken.unwrap_err().to_string().contains("a name or a regular expression as key"));
}

#[test]
fn what_peft_writes_by_default_is_understood() {
    // `LoraConfig(target_modules=["q_proj"]).to_dict()` of peft 0.21.2.
    let config = read(json!({"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
        "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": false, "init_lora_weights": true, "kasa_config": null,
        "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8,
        "lora_bias": false, "lora_dropout": 0.0, "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
        "modules_to_save": null, "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2",
        "qalora_group_size": 16, "r": 8, "rank_pattern": {}, "revision": null, "target_modules": ["q_proj"],
        "target_parameters": null, "task_type": null, "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
        "use_qalora": false, "use_rslora": false, "velora_config": null}));
    let expected = LoraConfig { targets: Targets::Named(vec!["q_proj".into()]), task_type: None, ..LoraConfig::default() };
    assert_eq!(config.unwrap(), expected);
}
