//! The formats on real files: the weights and rows of `../shared/data`. Where that folder is missing,
//! every trial is reported as ignored.

use std::path::PathBuf;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use wgtune_engine::DType;
use wgtune_models::data::batch::{Loader, Options};
use wgtune_models::data::encode::{Encoder, Example};
use wgtune_models::data::rows::{Columns, Dataset, Format};
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::formats::rope::rope_frequencies;
use wgtune_models::formats::safetensors::Weights;
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::transformer::{Blueprint, Positions};

type Test = fn() -> Result<(), Failed>;

fn main() {
    let tests: &[(&str, Test)] = &[
        ("weights_match_their_config", weights_match_their_config),
        ("golden_ids_and_text_agree", golden_ids_and_text_agree),
        ("a_trained_tokenizer_compresses_stories", a_trained_tokenizer_compresses_stories),
        ("every_row_of_sft_is_recognised_and_encoded", every_row_of_sft_is_recognised_and_encoded),
        ("stories_are_split_without_loss", stories_are_split_without_loss),
        ("questions_without_a_known_form_are_refused", questions_without_a_known_form_are_refused),
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
    let config = Blueprint::open(&directory)?;
    let weights = Weights::open_model(&directory)?;
    let embedding = weights.get("model.embed_tokens.weight")?;
    assert_eq!(embedding.shape, [config.vocab_size, config.hidden_size]);
    assert_eq!(embedding.dtype, DType::F32);
    assert!(embedding.to_f32().iter().all(|x| x.is_finite()));
    let elements: usize = weights.names().map(|name| weights.get(name).unwrap().shape.iter().product::<usize>()).sum();
    assert_eq!(elements, 260_032);
    let Positions::Rotary(rope) = &config.positions else { return Err("a Llama's positions are rotary".into()) };
    let (frequencies, factor) = rope_frequencies(rope, config.head_dim, 512, 512);
    assert_eq!((frequencies.len(), frequencies[0], factor), (4, 1.0, 1.0));
    Ok(())
}

fn golden_ids_and_text_agree() -> Result<(), Failed> {
    let directory = data("weights_stories260k");
    let golden: Value = serde_json::from_slice(&std::fs::read(directory.join("golden_greedy.json"))?)?;
    let ids: Vec<u32> = serde_json::from_value(golden["greedy_ids"].clone())?;
    let text = golden["text"].as_str().ok_or("golden text")?;

    let tokenizer = Tokenizer::open(&directory)?;
    tokenizer.check_vocabulary(Blueprint::open(&directory)?.vocab_size)?;
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

/// What `f` returns of rows encoded as stories260k would see them.
fn encoder(max_length: usize, split_text: bool, test: impl Fn(Encoder) -> Result<(), Failed>) -> Result<(), Failed> {
    let directory = data("weights_stories260k");
    let tokenizer = Tokenizer::open(&directory)?;
    let template = ChatTemplate::open(&directory)?;
    assert!(template.is_default());
    test(Encoder {
        tokenizer: Some(&tokenizer),
        template: &template,
        vocab_size: 512,
        max_length,
        opening: &[],
        prefix: 0,
        split_text,
        last_turn_only: false,
    })
}

fn every_row_of_sft_is_recognised_and_encoded() -> Result<(), Failed> {
    let files = [
        ("self_instruct_human.alpaca.jsonl", Format::Alpaca),
        ("dolly_150.alpaca.jsonl", Format::Alpaca),
        ("gpteacher_roleplay_400.alpaca.jsonl", Format::Alpaca),
        ("gpteacher_codegen_400.alpaca.jsonl", Format::Alpaca),
        ("glaive_toolcall_100.sharegpt.jsonl", Format::ShareGpt),
    ];
    encoder(512, false, |encoder| {
        for (name, format) in files {
            let path = data("sft").join(name);
            let rows = std::fs::read_to_string(&path)?.lines().count();
            let dataset = Dataset::open(&[path], &Columns::default())?;
            assert_eq!((dataset.files[0].format, dataset.rows.len()), (format, rows), "{name}");
            let (examples, report) = encoder.encode(&dataset, &dataset.rows)?;
            assert_eq!(report.examples + report.without_loss, rows, "{name}: {report}");
            assert_eq!(report.by_turn, 0, "{name}: {report}");
            assert!(examples.iter().all(|example| example.ids[0] == 1), "{name}: no <s>");
            let tokenizer = encoder.tokenizer.unwrap();
            let short = examples.iter().find(|example| example.ids.len() < 512);
            if let Some(example) = short {
                let learnt: Vec<u32> = example.labels.iter().copied().filter(|&label| label != u32::MAX).collect();
                let learnt = tokenizer.decode(&learnt, false)?;
                assert!(learnt.trim_end().ends_with("<|im_end|>"), "{name}: {learnt}");
                assert!(!learnt.contains("<|im_start|>user"), "{name}: {learnt}");
            }
        }
        Ok(())
    })
}

fn stories_are_split_without_loss() -> Result<(), Failed> {
    let dataset = Dataset::open(&[data("pretrain/tinystories_valid.txt")], &Columns::default())?;
    assert_eq!(dataset.rows.len(), 150);
    encoder(128, true, |encoder| {
        let (examples, report) = encoder.encode(&dataset, &dataset.rows)?;
        assert_eq!((report.truncated, report.without_loss), (0, 0), "{report}");
        let options = Options { batch_size: 8, packing: Some(128), shuffle: true, seed: 1, padding: 0 };
        let trained: usize = examples.iter().map(Example::trained_tokens).sum();
        let tokens: usize = examples.iter().map(|example| example.ids.len()).sum();
        let loader = Loader::new(examples, options);
        let batches: Vec<_> = (0..loader.batches_per_epoch()).map(|index| loader.batch(index)).collect();
        assert_eq!(batches.iter().map(|batch| batch.trained_tokens()).sum::<usize>(), trained);
        let places: usize = batches.iter().map(|batch| batch.ids.len()).sum();
        // Best fit decreasing needs at most 11/9 of the rows that would do.
        assert!(places * 9 <= tokens * 11, "{places} places for {tokens} tokens");
        Ok(())
    })
}

fn questions_without_a_known_form_are_refused() -> Result<(), Failed> {
    let error = Dataset::open(&[data("sft/gsm8k_train.jsonl")], &Columns::default()).unwrap_err().to_string();
    let expected = "gsm8k_train.jsonl:1: a row of unknown form, with the keys `question`, `solution`, `answer`";
    assert!(error.contains(expected), "{error}");
    Ok(())
}
