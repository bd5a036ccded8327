//! The formats on real files: the weights and rows of `../shared/data`. Where that folder is missing,
//! every trial is reported as ignored.

use std::path::PathBuf;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use wgtune_models::formats::config::ModelConfig;
use wgtune_models::formats::rope::rope_frequencies;
use wgtune_models::formats::safetensors::{Dtype, Weights};
use wgtune_models::formats::tokenizer::Tokenizer;

type Test = fn() -> Result<(), Failed>;

fn main() {
    let tests: &[(&str, Test)] = &[
        ("weights_match_their_config", weights_match_their_config),
        ("golden_ids_and_text_agree", golden_ids_and_text_agree),
        ("a_trained_tokenizer_compresses_stories", a_trained_tokenizer_compresses_stories),
    ];
    let missing = !data("").is_dir();
    let trials = tests.iter().map(|&(name, test)| Trial::test(name, test).with_ignored_flag(missing)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn data(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(path)
}

fn weights_match_their_config() -> Result<(), Failed> {
    let directory = data("weights_stories260k");
    let config = ModelConfig::open(&directory)?;
    let weights = Weights::open_model(&directory)?;
    let embedding = weights.get("model.embed_tokens.weight")?;
    assert_eq!(embedding.shape, [config.vocab_size, config.hidden_size]);
    assert_eq!(embedding.dtype, Dtype::F32);
    assert!(embedding.to_f32().iter().all(|x| x.is_finite()));
    let elements: usize = weights.names().map(|name| weights.get(name).unwrap().shape.iter().product::<usize>()).sum();
    assert_eq!(elements, 260_032);
    let (frequencies, factor) = rope_frequencies(&config.rope, config.head_dim, 512, 512);
    assert_eq!((frequencies.len(), frequencies[0], factor), (4, 1.0, 1.0));
    Ok(())
}

fn golden_ids_and_text_agree() -> Result<(), Failed> {
    let directory = data("weights_stories260k");
    let golden: Value = serde_json::from_slice(&std::fs::read(directory.join("golden_greedy.json"))?)?;
    let ids: Vec<u32> = serde_json::from_value(golden["greedy_ids"].clone())?;
    let text = golden["text"].as_str().ok_or("golden text")?;

    let tokenizer = Tokenizer::open(&directory)?;
    tokenizer.check_vocabulary(ModelConfig::open(&directory)?.vocab_size)?;
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_ids()), (Some(1), &[2][..]));
    assert_eq!(tokenizer.decode(&ids, true)?, text);
    assert_eq!(tokenizer.encode(text, true)?, ids);
    let mut stream = tokenizer.stream(true);
    let mut streamed = String::new();
    for &id in &ids {
        streamed += &stream.push(id)?;
    }
    assert_eq!(streamed + &stream.finish()?, text);
    Ok(())
}

fn a_trained_tokenizer_compresses_stories() -> Result<(), Failed> {
    let text = std::fs::read_to_string(data("pretrain/tinystories_valid.txt"))?;
    let tokenizer = Tokenizer::train(text.split("<|endoftext|>"), 1024)?;
    assert_eq!(tokenizer.vocab_size(), 1024);
    let ids = tokenizer.encode(&text, false)?;
    assert_eq!(tokenizer.decode(&ids, false)?, text);
    // English in 1024 merges takes two to three bytes a token; bytes alone would take one.
    assert!(text.len() > 2 * ids.len(), "{} bytes, {} ids", text.len(), ids.len());
    Ok(())
}
