//! Adapters that cannot be honoured are refused, and those that are written say what they are.

use serde_json::json;
use wgtune_models::formats::safetensors::Weights;

use crate::folder::{Folder, VOCABULARY};

const LORA: &str = "sft --model model --data rows.jsonl --steps 2 --device cpu";

/// What reads an adapter.
const READERS: [&str; 5] = [
    "logits --model model --adapter adapter --ids 1,2 --device cpu",
    "generate --model model --adapter adapter --ids 1,2 --device cpu",
    "eval --model model --adapter adapter --data rows.jsonl --device cpu",
    "merge --model model --adapter adapter --out merged --device cpu",
    "sft --model model --adapter adapter --data rows.jsonl --steps 1 --out further --device cpu",
];

#[test]
fn an_adapter_that_says_more_than_is_understood_is_refused_by_that_name() {
    let folder = Folder::new();
    for (key, value) in [
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("olora")),
        ("alora_invocation_tokens", json!([1])),
        ("kasa_config", json!({"beta": 1e-4})),
        ("use_bdlora", json!({"nblocks": 2})),
        ("arrow_config", json!({"top_k": 2})),
        ("unheard_of", json!("loud")),
    ] {
        folder.copy_fixture("lora", "adapter");
        folder.set("adapter/adapter_config.json", json!({key: value}));
        for reader in READERS {
            folder.fails(reader, &["adapter/adapter_config.json", &format!("`{key}` is {value}")]);
        }
    }
    assert!(folder.names("merged").is_empty() && folder.names("further").is_empty());
}

#[test]
fn an_adapter_with_a_number_that_is_not_finite_is_refused() {
    let folder = Folder::new();
    folder.copy_fixture("lora", "adapter");
    let name = "adapter/adapter_model.safetensors";
    let mut bytes = folder.read(name);
    let place = bytes.len() - 4;
    bytes[place..].copy_from_slice(&f32::NAN.to_le_bytes());
    folder.write(name, bytes);
    for reader in READERS {
        folder.fails(reader, &[name, "is NaN at element", "expected finite numbers"]);
    }
    assert!(folder.names("merged").is_empty() && folder.names("further").is_empty());
}

#[test]
fn a_base_that_gives_no_finite_logits_is_an_error() {
    let folder = Folder::new();
    let name = "model/model.safetensors";
    let mut bytes = folder.read(name);
    let place = bytes.len() - 4;
    bytes[place..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    folder.write(name, bytes);
    folder.copy_fixture("lora", "adapter");
    for command in [READERS[0], READERS[1], READERS[3]] {
        folder.fails(command, &["expected a finite number", "weights of model and adapter"]);
    }
    assert!(folder.names("merged").is_empty() && folder.names("").iter().all(|name| !name.starts_with('.')));
}

#[test]
fn every_target_is_a_layer_and_blanks_mean_nothing() {
    let folder = Folder::new();
    let train = |out: &str, targets: &str| {
        let mut arguments: Vec<&str> = LORA.split_whitespace().collect();
        arguments.extend(["--out", out, "--targets", targets]);
        folder.run_with(&arguments)
    };
    let run = train("out", "q_proj , v_proj");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(folder.json("out/adapter_config.json")["target_modules"], json!(["q_proj", "v_proj"]));
    let names = |out: &str| Weights::open_file(&folder.path(out).join("adapter_model.safetensors")).unwrap().names().count();
    // Two layers, two targets, two factors.
    assert_eq!(names("out"), 8);
    for (targets, wrong) in [("q_proj,v_prj", "v_prj"), ("q_proj,all-linear", "all-linear"), ("Q_PROJ", "Q_PROJ")] {
        train("refused", targets).failed(&[&format!("target {wrong:?} is in no layer of the model"), "down_proj", "q_proj"]);
    }
    train("refused", "q_proj v_proj").failed(&["--targets", "names separated by commas"]);
    assert!(folder.names("refused").is_empty());
}

#[test]
fn only_what_is_chosen_is_trained() {
    let folder = Folder::new();
    let full = "sft --model model --data rows.jsonl --steps 2 --device cpu --method full";
    folder.succeeds(&format!("{full} --out out --train-only lm_head.*,model.layers.1.*"));
    let weights = |name: &str| Weights::open_model(&folder.path(name)).unwrap();
    let (before, after) = (weights("model"), weights("out"));
    for name in before.names() {
        let is_chosen = name == "lm_head.weight" || name.starts_with("model.layers.1.");
        assert_eq!(before.get(name).unwrap().bytes != after.get(name).unwrap().bytes, is_chosen, "{name}");
    }
    for (patterns, expected) in [
        ("*.layers.2.*", "no parameter of this model fits \"*.layers.2.*\"; expected names as model.layers.0."),
        ("lm_head.weight,", "expected names separated by commas"),
    ] {
        folder.fails(&format!("{full} --out refused --train-only {patterns}"), &[expected]);
    }
    folder.copy_fixture("llama_tied", "model");
    let tied = "fits \"lm_head.weight\"; expected `model.embed_tokens.weight`, which is the output projection too";
    folder.fails(&format!("{full} --out refused --train-only lm_head.weight"), &[tied]);
    folder.fails(
        &format!("{LORA} --out refused --train-only *"),
        &["--train-only goes with --method full, and the method is lora"],
    );
    folder.fails(&format!("{full} --out refused --rank 4"), &["--rank goes with --method lora, and the method is full"]);
    assert!(folder.names("refused").is_empty());
}

#[test]
fn whole_modules_are_trained_and_kept_beside_updates_and_merging_unties_them() {
    let folder = Folder::new();
    folder.copy_fixture("llama_tied", "model");
    let train = format!("{LORA} --targets q_proj,embed_tokens --out");
    folder.succeeds(&format!("{train} adapter --modules-to-save lm_head,model.norm"));
    let adapter = Weights::open_file(&folder.path("adapter/adapter_model.safetensors")).unwrap();
    let base = Weights::open_model(&folder.path("model")).unwrap();
    for (saved, began) in [("lm_head.weight", "model.embed_tokens.weight"), ("model.norm.weight", "model.norm.weight")] {
        let saved = adapter.get(&format!("base_model.model.{saved}")).unwrap();
        assert_ne!(saved.bytes, base.get(began).unwrap().bytes, "{began}");
    }
    let report = folder.reports("merge --model model --adapter adapter --out merged --device cpu --json");
    // Two layers' queries, and the embedding.
    assert_eq!(report["merged_layers"], 3, "{report}");
    // Of logits of up to 10, in f32.
    assert!(report["largest_logit_difference"].as_f64().unwrap() < 1e-4, "{report}");
    assert_eq!(folder.json("merged/config.json")["tie_word_embeddings"], false);

    // What was begun is gone on with, whole modules too.
    folder.succeeds("sft --model model --data rows.jsonl --steps 1 --device cpu --adapter adapter --out further");
    assert_eq!(folder.json("further/adapter_config.json")["modules_to_save"], json!(["lm_head", "model.norm"]));
    for (modules, expected) in [
        ("head_of_lm", "module \"head_of_lm\" to be saved is not in the model"),
        ("q_proj", "model.layers.0.self_attn.q_proj is to be updated and to be trained whole"),
    ] {
        folder.fails(&format!("{train} refused --modules-to-save {modules}"), &[expected]);
    }
    assert!(folder.names("refused").is_empty());
}

#[test]
fn gpt2_is_tuned_merged_and_asked_as_any_other() {
    let folder = Folder::new();
    folder.copy_fixture("gpt2", "model");
    folder.succeeds(&format!("{LORA} --targets c_attn --modules-to-save transformer.ln_f --out adapter"));
    let config = folder.json("adapter/adapter_config.json");
    assert_eq!((config["fan_in_fan_out"].clone(), config["target_modules"].clone()), (json!(true), json!(["c_attn"])));
    let report = folder.reports("merge --model model --adapter adapter --out merged --device cpu --json");
    // Of logits of up to 10, in f32.
    assert!(report["largest_logit_difference"].as_f64().unwrap() < 1e-4, "{report}");
    let shape = |name: &str| {
        let weights = Weights::open_model(&folder.path(name)).unwrap();
        weights.shape("transformer.h.0.attn.c_attn.weight").unwrap().to_vec()
    };
    assert_eq!((shape("model"), shape("merged")), (vec![32, 96], vec![32, 96]));
    let answer = |model: &str| folder.reports(&format!("generate {model} --ids 1,2,3 --temperature 0 --device cpu --json"));
    assert_eq!(answer("--model merged")["ids"], answer("--model model --adapter adapter")["ids"]);
    // There is no place for more than was learnt.
    for beyond in ["", " --beyond"] {
        let command = format!("generate --model model --ids 1,2 --max-new-tokens 23 --device cpu{beyond}");
        folder.fails(&command, &["the prompt with --max-new-tokens is 25 tokens long, and the model was made for 24 at most"]);
    }
    folder.fails(
        &format!("{LORA} --targets q_proj --out refused"),
        &["target \"q_proj\" is in no layer", "c_attn, c_fc, c_proj, wte"],
    );
    folder.set("model/config.json", json!({"n_inner": 47}));
    folder.fails(
        "generate --model model --ids 1 --device cpu",
        &["`n_inner` is 47; expected the size that tensor `transformer.h.0.mlp.c_fc.weight`"],
    );
}

#[test]
fn a_rank_above_a_layers_width_is_refused() {
    let folder = Folder::new();
    folder.fails(
        &format!("{LORA} --out out --rank 1000"),
        &["a rank of 1000 for model.layers.0.self_attn.q_proj", "at most its width"],
    );
    assert!(folder.names("out").is_empty());
}

#[test]
fn an_adapter_brings_its_tokenizer_a_card_and_a_base_that_is_found_from_anywhere() {
    let folder = Folder::pretrained();
    folder.write_rows("rows.jsonl", &[json!({"prompt": "The cat", "completion": " sat."})]);
    folder.succeeds(&format!("{LORA} --out out --validation 0"));
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        assert_eq!(folder.read(&format!("out/{name}")), folder.read(&format!("model/{name}")), "{name}");
    }
    let base = folder.json("out/adapter_config.json")["base_model_name_or_path"].as_str().unwrap().to_string();
    assert!(std::path::Path::new(&base).is_absolute() && base.ends_with("model"), "{base}");
    let card = String::from_utf8(folder.read("out/README.md")).unwrap();
    assert!(card.starts_with("---\nlibrary_name: peft\n") && card.contains(&base), "{card}");

    folder.set("model/config.json", json!({"_name_or_path": "owner/base"}));
    folder.succeeds(&format!("{LORA} --out named --validation 0"));
    assert_eq!(folder.json("named/adapter_config.json")["base_model_name_or_path"], "owner/base");
    assert!(folder.read("named/README.md").starts_with(b"---\nbase_model: owner/base\n"));
}

#[test]
fn tokens_past_what_the_model_was_made_for_need_a_word() {
    let folder = Folder::new();
    folder.set("model/config.json", json!({"max_position_embeddings": 16}));
    folder.write_rows("rows.jsonl", &[json!({"input_ids": (0..40).collect::<Vec<u32>>()}), json!({"input_ids": [1, 2, 3]})]);
    let ids: Vec<String> = (0..20).map(|id: u32| (id % VOCABULARY).to_string()).collect();
    let ids = ids.join(",");
    let too_long = |command: &str, what: &str| {
        folder.fails(command, &[what, "the model was made for 16 at most", "--beyond"]);
        let run = folder.run(&format!("{command} --beyond"));
        assert_eq!(run.code, Some(0), "{command}: {}", run.stderr);
    };
    too_long("eval --model model --data rows.jsonl --device cpu --max-length 17", "the longest row is 17 tokens long");
    too_long(&format!("{LORA} --out out --max-length 17"), "the longest row is 17 tokens long");
    too_long(&format!("logits --model model --ids {ids} --device cpu"), "the prompt is 20 tokens long");
    too_long(&format!("generate --model model --ids {ids} --device cpu"), "the prompt with a new token is 21 tokens long");
    too_long(
        "generate --model model --ids 1 --max-new-tokens 16 --device cpu",
        "the prompt with --max-new-tokens is 17 tokens long",
    );

    let run = folder.run("eval --model model --data rows.jsonl --device cpu");
    assert!(run.code == Some(0) && run.stderr.contains("2 examples of 19 tokens"), "{}", run.stderr);
    let report = folder.reports("generate --model model --ids 1,2 --temperature 0 --device cpu --json");
    assert!(report["ids"].as_array().unwrap().len() <= 14, "{report}");
    // A scaling that stretches the model four times.
    folder.set("model/config.json", json!({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}));
    folder.succeeds("eval --model model --data rows.jsonl --device cpu --max-length 64");
}

#[test]
fn what_is_no_model_folder_is_told_what_to_do() {
    let folder = Folder::new();
    folder.copy_fixture("lora", "adapter");
    folder.write("model.gguf", "GGUF");
    std::fs::create_dir(folder.path("weights")).unwrap();
    folder.write("weights/model-q4.gguf", "GGUF");
    std::fs::create_dir(folder.path("empty")).unwrap();
    for (model, expected) in [
        ("model.gguf", vec!["model.gguf is a GGUF file", "from_pretrained(FOLDER, gguf_file=FILE)"]),
        ("weights", vec!["weights has no config.json, only model-q4.gguf", "gguf_file=FILE"]),
        (
            "HuggingFaceTB/SmolLM2-135M",
            vec!["there is no folder HuggingFaceTB/SmolLM2-135M", "hf download HuggingFaceTB/SmolLM2-135M"],
        ),
        ("./nowhere", vec!["there is no folder ./nowhere", "expected the folder of a model"]),
        ("rows.jsonl", vec!["rows.jsonl is a file", "expected the folder of a model"]),
        ("empty", vec!["empty has no config.json"]),
        ("adapter", vec!["adapter is the folder of an adapter"]),
    ] {
        for command in [
            "sft --data rows.jsonl --out out --device cpu",
            "eval --data rows.jsonl --device cpu",
            "generate --prompt x --device cpu",
            "logits --prompt x --device cpu",
            "tokenize --text x",
            "merge --adapter adapter --out merged --device cpu",
            "bench --filter add --device cpu",
        ] {
            folder.fails(&format!("{command} --model {model}"), &expected);
        }
    }
}
