//! What is read: one function a format, and the folder that it is read from.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, json};
use tempfile::TempDir;
use wgtune_engine::Device;
use wgtune_models::Result;
use wgtune_models::data::rows::{Columns, Dataset};
use wgtune_models::formats::chat_template::{ChatTemplate, TEMPLATE_FILE};
use wgtune_models::formats::safetensors::{INDEX_FILE, MODEL_FILE, Weights};
use wgtune_models::formats::sandbox::silence_panics;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::peft::lora::LoraConfig;
use wgtune_models::peft::{self, ADAPTER_FILE, CONFIG_FILE, Tuned};
use wgtune_models::train::record::{May, Record};
use wgtune_models::train::run::{Begin, RunDirectory};
use wgtune_models::train::schedule::{LearningRate, Schedule};
use wgtune_models::train::trainer::Plan;
use wgtune_models::train::update::Progress;
use wgtune_models::transformer::Blueprint;
use wgtune_models::transformer::{load_decoder, new_decoder};

use super::{corpus_folder, fuzz};

/// Fuzzes what is read from the file `name` of a folder, which may hold other files beside it.
fn fuzz_file(target: &str, executions: u32, name: &str, beside: &[(&str, &[u8])], read: impl Fn(&Path) -> Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    beside.iter().for_each(|(name, content)| write(&folder, name, content));
    fuzz(target, executions, |input| {
        write(&folder, name, input);
        read(folder.path()).map_err(|error| error.to_string())
    });
}

fn write(folder: &TempDir, name: &str, content: &[u8]) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn seed(name: &str) -> Vec<u8> {
    fs::read(corpus_folder().join(name)).unwrap()
}

#[test]
fn configs() {
    fuzz_file("config", 5000, "config.json", &[], |folder| {
        let config = Blueprint::open(folder)?;
        Blueprint::from_json(Path::new("again"), config.to_json()).map(drop)
    });
}

#[test]
fn configs_beside_weights() {
    let device = Device::cpu();
    let weights = fixture("llama/model.safetensors");
    fuzz_file("config", 2000, "config.json", &[(MODEL_FILE, &weights)], |folder| load_decoder(folder, &device).map(drop));
}

#[test]
fn tokenizer_configs() {
    let tokenizer = seed("tokenizer/word_level.json");
    fuzz_file("tokenizer_config", 2000, "tokenizer_config.json", &[("tokenizer.json", &tokenizer)], |folder| {
        let tokenizer = Tokenizer::open(folder)?;
        tokenizer.encode("the cat sat", true)?;
        ChatTemplate::open(folder)?.render(&conversation(), None, true).map(drop)
    });
}

#[test]
fn tokenizers() {
    silence_panics();
    let text = "The cat sat on the mat, Grüße 世界 \u{1F99E} it's 3.14\n\n  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa! <|endoftext|>";
    fuzz_file("tokenizer", 1000, "tokenizer.json", &[], |folder| {
        let tokenizer = Tokenizer::open(folder)?;
        let _ = tokenizer.check_vocabulary(100);
        let ids = tokenizer.encode(text, true)?;
        tokenizer.encode_with_offsets(text)?;
        tokenizer.pieces(&ids);
        tokenizer.decode(&ids, true)?;
        tokenizer.decode(&[u32::MAX, 0, 1 << 31], false)?;
        let mut stream = tokenizer.stream(false);
        ids.iter().take(8).try_for_each(|&id| stream.push(id).map(drop))
    });
}

#[test]
fn weight_files() {
    fuzz_file("safetensors", 5000, MODEL_FILE, &[], |folder| read_weights(&Weights::open_model(folder)?));
}

#[test]
fn indices_of_shards() {
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let bytes = shards.map(|shard| fixture(&format!("bf16/{shard}")));
    let beside = [(shards[0], &bytes[0][..]), (shards[1], &bytes[1][..])];
    fuzz_file("index", 2000, INDEX_FILE, &beside, |folder| read_weights(&Weights::open_model(folder)?));
}

fn read_weights(weights: &Weights) -> Result<()> {
    weights.names().try_for_each(|name| {
        let view = weights.get(name)?;
        assert_eq!(view.to_f32().len(), view.shape.iter().product::<usize>());
        Ok(())
    })
}

#[test]
fn adapter_configs() {
    fuzz_file("adapter_config", 5000, "adapter_config.json", &[], |folder| {
        let config = LoraConfig::open(folder)?;
        let module = "model.layers.0.self_attn.q_proj";
        config.adapts(module);
        config.rank_of(module);
        config.scale_of(module);
        Ok(())
    });
}

/// The config of an adapter of any method, on a model that it may fit, beside tensors that fit one of them.
#[test]
fn adapters() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let decoder = load_decoder(&fixtures.join("llama"), &Device::cpu()).unwrap();
    let tensors = fixture("tuned/prompt_llama/adapter_model.safetensors");
    fuzz_file("adapter", 2000, CONFIG_FILE, &[(ADAPTER_FILE, &tensors)], |folder| peft::open(folder, decoder.clone()).map(drop));
}

/// A format of rows is one line here, and a folder of seeds.
macro_rules! rows {
    ($($name:ident: $target:literal, $file:literal;)*) => {$(
        #[test]
        fn $name() {
            fuzz_file($target, 5000, $file, &[], |folder| Dataset::open(&[folder.join($file)], &Columns::default()).map(drop));
        }
    )*};
}

rows! {
    rows_of_json_lines: "rows_lines", "rows.jsonl";
    rows_of_a_json_array: "rows_array", "rows.json";
    rows_of_plain_text: "rows_text", "rows.txt";
    rows_of_csv: "rows_csv", "rows.csv";
    rows_of_tsv: "rows_tsv", "rows.tsv";
    rows_of_parquet: "rows_parquet", "rows.parquet";
    rows_of_gzip: "rows_gzip", "rows.jsonl.gz";
    rows_of_zstd: "rows_zstd", "rows.jsonl.zst";
}

#[test]
fn chat_templates() {
    silence_panics();
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    fuzz_file("chat_template", 2000, TEMPLATE_FILE, &[], |folder| {
        let template = ChatTemplate::open(folder)?;
        template.render(&conversation(), None, true)?;
        template.render(&conversation(), Some(&tools), false).map(drop)
    });
}

fn conversation() -> Vec<serde_json::Value> {
    vec![
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Grüße & <b>x</b>"}),
        json!({"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5}}}]}),
        json!({"role": "tool", "content": "3"}),
        json!({"role": "assistant", "content": "three"}),
    ]
}

#[test]
fn states_of_checkpoints() {
    let tensors = seed("checkpoint_tensors/tiny.safetensors");
    fuzz_checkpoint("checkpoint_state", "state.json", ("tensors.safetensors", &tensors));
}

#[test]
fn tensors_of_checkpoints() {
    let state = seed("checkpoint_state/step.json");
    fuzz_checkpoint("checkpoint_tensors", "tensors.safetensors", ("state.json", &state));
}

#[test]
fn records_of_runs() {
    fuzz_file("record", 5000, "run.toml", &[], |folder| Record::open(&folder.join("run.toml")).map(drop));
}

/// The checkpoint of a run that trains one tiny model whole.
fn fuzz_checkpoint(target: &str, name: &str, beside: (&str, &[u8])) {
    let (model, plan) = tiny_run();
    let in_checkpoint = |name: &str| format!("checkpoint/{name}");
    let metrics: &[u8] = b"{\"step\": 1}\n{\"step\": 2}\n";
    let run: &[u8] = b"[run]\ncommand = \"sft\"\nwgtune = \"\"\nhas-results = false\n";
    let beside = [(&*in_checkpoint(beside.0), beside.1), ("metrics.jsonl", metrics), ("run.toml", run)];
    fuzz_file(target, 1000, &in_checkpoint(name), &beside, |folder| {
        let mut progress = Progress::new(&model, &plan);
        RunDirectory::open(folder, Begin::Resumed, record(), &May::default())?.resume(&mut progress).map(drop)
    });
}

fn record() -> Record {
    Record::new("sft", Map::new(), Map::new())
}

/// A tiny model and how it is trained.
fn tiny_run() -> (Tuned, Plan) {
    let config = json!({
        "model_type": "llama", "vocab_size": 3, "hidden_size": 4, "intermediate_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": 8, "tie_word_embeddings": true,
    });
    let config = Blueprint::from_json(Path::new("tiny"), config).unwrap();
    let decoder = new_decoder(config, &Device::cpu(), 0).unwrap();
    let plan = Plan {
        steps: 10,
        accumulate: 1,
        learning_rate: LearningRate { peak: 1e-3, warmup_steps: 0, total_steps: 10, schedule: Schedule::Cosine },
        weight_decay: 0.0,
        clip: 1.0,
        checkpoint_blocks: false,
        seed: 0,
        eval_every: 0,
        patience: 0,
        keep_last: false,
        save_every: 0,
        save_after: Duration::ZERO,
    };
    (Tuned::bare(decoder).requiring_grad(), plan)
}

#[test]
#[ignore = "writes the seeds of checkpoints, after a change of their layout"]
fn checkpoints_are_written_into_the_corpus() {
    let (model, plan) = tiny_run();
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::open(folder.path(), Begin::New, record(), &May::default()).unwrap();
    run.save(&Progress::new(&model, &plan), None).unwrap();
    for (file, seed) in
        [("state.json", "checkpoint_state/step.json"), ("tensors.safetensors", "checkpoint_tensors/tiny.safetensors")]
    {
        let to = corpus_folder().join(seed);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(folder.path().join("checkpoint").join(file), to).unwrap();
    }
}
