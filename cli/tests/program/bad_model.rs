//! Model and adapter folders that cannot be used: each is an error that names file, tensor or key.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::folder::{Folder, Run};

const WEIGHTS: &str = "model/model.safetensors";
const TRAIN: &str = "sft --model model --data rows.jsonl --out out --steps 2 --validation 0 --device cpu";
const EVALUATE: &str = "eval --model model --data rows.jsonl --device cpu";

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::new();
    folder.fails("sft --model nowhere --data rows.jsonl --out out", &["there is no folder nowhere", "config.json"]);
    folder.fails(
        "eval --model model --adapter nowhere --data rows.jsonl --device cpu",
        &["nowhere", "adapter_config.json", "No such file"],
    );
    folder.fails("generate --model model --prompt x --device cpu", &["model", "tokenizer.json", "No such file"]);
    folder.fails("generate --model nowhere --ids 1", &["there is no folder nowhere", "config.json"]);
    folder.fails("tokenize --model model --text x", &["model", "tokenizer.json"]);
    folder.fails("logits --model nowhere --ids 1", &["nowhere", "config.json"]);
    folder.fails("merge --model model --adapter nowhere --out out --device cpu", &["nowhere", "adapter_config.json"]);
    fs::remove_file(folder.path(WEIGHTS)).unwrap();
    folder.fails(TRAIN, &["model.safetensors", "No such file"]);
    assert!(folder.names("out").is_empty());
}

#[test]
fn a_truncated_weight_file_is_told() {
    let folder = Folder::new();
    let whole = folder.read(WEIGHTS);
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        folder.write(WEIGHTS, &whole[..length]);
        folder.fails(TRAIN, &[WEIGHTS, "truncated"]);
    }
    assert!(folder.names("out").is_empty());
}

#[test]
fn a_header_that_lies_is_told_with_its_tensor() {
    let folder = Folder::new();
    let whole = folder.read(WEIGHTS);
    for (key, value, expected) in [
        ("data_offsets", json!([0, 4]), "its offsets are 0..4"),
        ("data_offsets", json!([1u64 << 40, (1u64 << 40) + 128]), "its data ends at byte"),
        ("data_offsets", json!([128, 0]), "its offsets are 128..0"),
        ("shape", json!([1u64 << 62, 1u64 << 62]), "overflows"),
        ("dtype", json!("F33"), "F33"),
    ] {
        folder.write(WEIGHTS, with_header(&whole, |header| header["model.norm.weight"][key] = value));
        folder.fails(EVALUATE, &[WEIGHTS, "model.norm.weight", expected]);
    }
    folder.write(WEIGHTS, [&[0xff; 8], &whole[8..]].concat());
    folder.fails(EVALUATE, &[WEIGHTS, "not a safetensors file"]);
}

#[test]
fn tensors_must_be_those_of_the_config() {
    let folder = Folder::new();
    let whole = folder.read(WEIGHTS);
    let renamed = |from: &str, to: &str| {
        with_header(&whole, |header| {
            let entry = header.as_object_mut().unwrap().remove(from).unwrap();
            header[to] = entry;
        })
    };
    folder.write(WEIGHTS, renamed("model.norm.weight", "model.norms.weight"));
    folder.fails(EVALUATE, &["model", "no tensor `model.norm.weight`"]);
    folder.write(WEIGHTS, whole);
    folder.set("model/config.json", json!({"num_hidden_layers": 1}));
    folder.fails(EVALUATE, &["model/config.json: `num_hidden_layers` is 1; expected 2, as many as there are in", WEIGHTS]);
    folder.copy_fixture("llama_bias", "model");
    folder.set("model/config.json", json!({"attention_bias": false}));
    folder.fails(EVALUATE, &["tensor `model.layers.0.", "_proj.bias` has no place"]);
}

#[test]
fn sizes_must_be_those_of_the_weights() {
    let folder = Folder::new();
    let whole = folder.read("model/config.json");
    for (key, value, expected) in [
        ("num_hidden_layers", json!(1_000_000_000), "expected at most 65536"),
        ("num_hidden_layers", json!(60_000), "expected 2, as many as there are in"),
        ("vocab_size", json!(u32::MAX), "`model.embed_tokens.weight` in model/model.safetensors has: [64, 32]"),
        ("intermediate_size", json!(48), "`model.layers.0.mlp.up_proj.weight` in model/model.safetensors has: [40, 32]"),
        ("intermediate_size", json!(u32::MAX), "`model.layers.0.mlp.up_proj.weight`"),
        ("hidden_size", json!(u32::MAX), "`model.embed_tokens.weight`"),
        ("num_attention_heads", json!(u32::MAX - 1), "[32, 32], by the 8 of a head"),
        ("num_key_value_heads", json!(1), "[16, 32], by the 8 of a head"),
        ("head_dim", json!(65_536), "by the 65536 of a head"),
    ] {
        folder.write("model/config.json", &whole);
        folder.set("model/config.json", json!({key: value}));
        folder.fails(EVALUATE, &["model/config.json: `", expected]);
    }
    assert!(folder.names("out").is_empty());
}

#[test]
#[cfg(unix)]
fn a_pipe_in_a_files_place_is_refused_without_waiting() {
    let folder = Folder::new();
    for name in [WEIGHTS, "model/config.json"] {
        let whole = folder.read(name);
        fs::remove_file(folder.path(name)).unwrap();
        assert!(Command::new("mkfifo").arg(folder.path(name)).status().unwrap().success());
        folder.fails(EVALUATE, &[name, "a pipe, a device or a socket; expected a file"]);
        fs::remove_file(folder.path(name)).unwrap();
        folder.write(name, whole);
    }
}

/// Runs `tokenize` on a chat. Where the shell can limit memory, all that is reserved, the sandbox's stack of half a GiB too,
/// must stay below 2 GB.
fn tokenize_chat(folder: &Folder) -> Run {
    let arguments = ["tokenize", "--model", "model", "--messages", "chat.json"];
    if !cfg!(target_os = "linux") {
        return folder.run_with(&arguments);
    }
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 2000000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_wgtune")]).args(arguments);
    Run::new(command.current_dir(folder.path(".")).output().unwrap())
}

#[test]
fn a_hostile_chat_template_is_refused_within_seconds_and_little_memory() {
    let folder = Folder::pretrained();
    folder.write("chat.json", json!([{"role": "user", "content": "Hello"}]).to_string());
    let deep = format!("{{{{ 1{} }}}}", "+1".repeat(20_000));
    let deeper = format!("{{{{ {}1 }}}}", "-".repeat(130_000));
    let doubled = format!("{{% set x = 'abcdefgh' %}}{}", "{% set x = x + x %}".repeat(60));
    let loops = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    let slow = "{% set x = 'ab' * 10**6 %}{% for a in range(100000) %}{% if x | replace('a', 'b') == 1 %}{% endif %}{% endfor %}";
    for (template, expected) in [
        (&*doubled, "takes more than 64 MiB of memory"),
        (loops, "takes more than 10000000 steps"),
        (slow, "takes longer than 10s"),
        ("{{ messages | tojson(indent=99999999999) }}", "tojson(indent=99999999999): expected at most 100"),
        ("{{ 'a' * 10**7 }}", "writes 10000000 bytes"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion limit exceeded"),
        (&*format!("{{#{}#}}", "x".repeat(200_000)), "its source has 200004 bytes; expected at most 131072"),
    ] {
        folder.write("model/chat_template.jinja", template);
        let expected = ["model/chat_template.jinja: chat template: ", expected];
        let started = Instant::now();
        let run = tokenize_chat(&folder);
        run.failed(&expected);
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }
    for template in [&deep, &deeper] {
        folder.write("model/chat_template.jinja", template);
        let run = tokenize_chat(&folder);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
}

#[test]
fn an_index_and_its_shards_must_agree() {
    let folder = Folder::new();
    let index = "sharded/model.safetensors.index.json";
    let evaluate = "eval --model sharded --data rows.jsonl --device cpu";
    folder.copy_fixture("bf16", "sharded");
    folder.succeeds(evaluate);

    let whole = folder.json(index);
    let mut without = whole.clone();
    let map = without["weight_map"].as_object_mut().unwrap();
    map.retain(|_, shard| shard != "model-00002-of-00002.safetensors");
    folder.write(index, without.to_string());
    folder.fails(evaluate, &["no tensor `"]);

    let mut elsewhere = whole.clone();
    elsewhere["weight_map"]["model.norm.weight"] = json!("../model.safetensors");
    folder.write(index, elsewhere.to_string());
    folder.fails(evaluate, &[index, "weight_map.model.norm.weight", "../model.safetensors"]);

    folder.write(index, whole.to_string());
    fs::remove_file(folder.path("sharded/model-00002-of-00002.safetensors")).unwrap();
    folder.fails(evaluate, &["model-00002-of-00002.safetensors", "No such file"]);
}

#[test]
fn a_config_with_an_impossible_shape_names_the_key() {
    let folder = Folder::new();
    let whole = folder.read("model/config.json");
    for (keys, expected) in [
        (json!({"num_key_value_heads": 3}), ["num_key_value_heads` is 3", "divisor of `num_attention_heads`, which is 4"]),
        (json!({"num_attention_heads": 0}), ["num_attention_heads` is 0", "positive integer"]),
        (json!({"hidden_size": -32}), ["hidden_size` is -32", "positive integer"]),
        (json!({"vocab_size": 1e30}), ["vocab_size` is 1e+30", "positive integer"]),
        (json!({"head_dim": 7}), ["head_dim` is 7", "even number"]),
        (json!({"num_hidden_layers": null}), ["num_hidden_layers` is", "positive integer"]),
        (json!({"model_type": "mamba"}), ["model_type` is \"mamba\"", "one of llama, mistral, qwen2, qwen3"]),
        (json!({"hidden_act": "gelu"}), ["hidden_act` is \"gelu\"", "silu"]),
    ] {
        folder.write("model/config.json", &whole);
        folder.set("model/config.json", keys);
        folder.fails(EVALUATE, &["model/config.json", expected[0], expected[1]]);
    }
    folder.write("model/config.json", &whole[..whole.len() / 2]);
    folder.fails(EVALUATE, &["model/config.json:", "broken JSON"]);
    folder.fails("pretrain --data rows.jsonl --out out", &["rows.jsonl:1", "expected plain text"]);
    assert!(folder.names("out").is_empty());
}

#[test]
fn a_tokenizer_of_another_vocabulary_is_told() {
    let folder = Folder::pretrained();
    folder.copy_fixture("llama", "other");
    fs::copy(folder.path("model/tokenizer.json"), folder.path("other/tokenizer.json")).unwrap();
    folder.write_rows("rows.jsonl", &[json!({"prompt": "The cat", "completion": " sat."})]);
    let expected = ["other/tokenizer.json", "tokenizer of another vocabulary", "`vocab_size` is 64"];
    folder.fails("sft --model other --data rows.jsonl --out out --device cpu", &expected);
    folder.fails("generate --model other --prompt x --device cpu", &expected);
    folder.write("other/tokenizer.json", "{}");
    folder.fails("generate --model other --prompt x --device cpu", &["other/tokenizer.json"]);
}

#[test]
fn adapters_must_fit_their_base() {
    let folder = Folder::pretrained();
    folder.copy_fixture("llama", "other");
    folder.write_rows("rows.jsonl", &[json!({"prompt": "The cat", "completion": " sat."})]);
    folder.succeeds("sft --model model --data rows.jsonl --out adapter --steps 1 --targets all-linear --device cpu");
    let expected = ["adapter/adapter_model.safetensors", "has shape", "an adapter of another base"];
    folder.fails("generate --model other --adapter adapter --force --ids 1 --device cpu", &expected);
    folder.fails("merge --model other --adapter adapter --force --out merged --device cpu", &expected);
    assert!(folder.names("merged").is_empty());

    let config = "adapter/adapter_config.json";
    let generate = "generate --model model --adapter adapter --prompt The --device cpu";
    folder.succeeds(generate);
    folder.set(config, json!({"target_modules": ["q_proj"]}));
    folder.fails(generate, &["adapter_model.safetensors", "belongs to no adapted layer", "an adapter of another base"]);
    folder.set(config, json!({"target_modules": ["query_key_value"]}));
    folder.fails(generate, &["query_key_value", "expected some of", "q_proj"]);
    folder.set(config, json!({"target_modules": ["q_proj"], "r": 0}));
    folder.fails(generate, &[config, "`r` is 0", "expected"]);
    folder.set(config, json!({"r": 8, "peft_type": "VERA"}));
    folder.fails(generate, &[config, "`peft_type` is \"VERA\"", "LORA"]);
}

#[test]
fn new_adapters_must_fit_their_base() {
    let folder = Folder::new();
    folder
        .fails(&format!("{TRAIN} --targets c_attn,c_proj"), &["target \"c_attn\" is in no layer", "expected some of", "q_proj"]);
    folder.fails(&format!("{TRAIN} --rank 0"), &["--rank", "'0'", "expected a whole number from 1"]);
    folder.fails(&format!("{TRAIN} --dropout 1"), &["--dropout", "'1'", "from 0 to below 1"]);
    folder.fails(&format!("{TRAIN} --adapter model"), &["model/adapter_config.json", "No such file"]);
    folder.fails(&format!("{TRAIN} --adapter model --rank 4"), &["--adapter", "cannot be used with", "--rank"]);
    folder.fails(&format!("{TRAIN} --adapter model --method full"), &["--adapter goes with --method lora"]);
    assert!(folder.names("out").is_empty());
}

#[test]
fn a_loss_that_is_not_finite_names_the_first_op_and_keeps_the_last_checkpoint() {
    let folder = Folder::new();
    let whole = folder.read(WEIGHTS);
    for value in [f32::NAN, f32::INFINITY] {
        let mut poisoned = whole.clone();
        let place = start_of("model.layers.1.self_attn.o_proj.weight", &whole);
        poisoned[place..place + 4].copy_from_slice(&value.to_le_bytes());
        folder.write(WEIGHTS, &poisoned);
        for method in ["lora", "full"] {
            let expected = ["step 1: the loss is", "the first op whose output was not finite is `matmul"];
            folder.fails(&format!("{TRAIN} --method {method}"), &expected);
            assert_eq!(folder.names("out"), ["metrics.jsonl", "run.lock", "run.toml"]);
            assert!(folder.read("out/metrics.jsonl").is_empty());
        }
        folder.fails(EVALUATE, &["the loss is", "the first op whose output was not finite is `matmul"]);
        folder.fails("generate --model model --ids 1,2,3 --device cpu", &["a logit is", "expected a finite number"]);
        folder.write(WEIGHTS, &whole);
    }
    let absurd = "sft --model model --data rows.jsonl --out absurd --method full --steps 8 --clip 0 --save-every 1 \
         --learning-rate 1e30 --device cpu";
    folder.fails(
        absurd,
        &[
            "the loss is",
            "the first op whose output was not finite is `",
            "train at a lower learning rate",
            "try --learning-rate",
        ],
    );
    folder.check_whole("absurd");
    let steps = folder.json("absurd/checkpoint/state.json")["step"].clone();
    assert_eq!(folder.lines("absurd/metrics.jsonl").len() as u64, steps.as_u64().unwrap());
}

/// A weight file with its header changed.
fn with_header(file: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    change(&mut header);
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &file[8 + length..]].concat()
}

/// Where a tensor's first byte lies in a weight file.
fn start_of(tensor: &str, file: &[u8]) -> usize {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    8 + length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize
}
