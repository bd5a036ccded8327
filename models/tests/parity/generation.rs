//! Token by token with the cache: the logits of the full pass, and a story that another implementation wrote.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use wgtune_engine::{Device, ops};
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::generate::{FinishReason, Sampling, generate};
use wgtune_models::transformer::load_decoder;
use wgtune_models::transformer::{Cache, Forward};

use crate::compare::within;
use crate::fixtures::{Expected, MODELS, Tokens, path};
use crate::{Check, Outcome};

/// How many tokens enter the cache at a time: a prompt, single tokens, several at once behind others, single tokens again.
const PIECES: [usize; 11] = [5, 1, 1, 1, 6, 1, 1, 1, 1, 1, 1];

pub fn checks() -> Vec<Check> {
    let cached = |name: &'static str| Check::new(format!("{name}: logits with the cache"), move |device| cached(device, name));
    let mut checks: Vec<Check> = MODELS.into_iter().map(cached).collect();
    checks.push(Check { missing: !stories().is_dir(), ..Check::new("stories260k: greedy text", greedy_text) });
    checks
}

fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/weights_stories260k")
}

fn cached(device: &Device, name: &str) -> Outcome {
    let decoder = load_decoder(&path(name), device)?;
    let mut tokens = Tokens::of(&Expected::of(name));
    if name == "llama_rope_dynamic" {
        // Past this the frequencies depend on the length, and keys in the cache keep those of when they came.
        tokens = tokens.columns(0..decoder.blueprint().max_position_embeddings);
    }
    let full = decoder.logits(&decoder.hidden(&tokens.input(device), &Forward::default()));

    let mut cache = Cache::new(decoder.blueprint(), device, tokens.rows, tokens.length + 3);
    let mut logits = Vec::new();
    for piece in PIECES {
        let start = cache.length();
        if start == tokens.length {
            break;
        }
        let input = tokens.columns(start..start + piece).input(device);
        logits.push(decoder.logits(&decoder.hidden_cached(&input, &(), &mut cache)));
    }
    assert_eq!(cache.length(), tokens.length);
    let logits = ops::cat(&logits.iter().collect::<Vec<_>>(), 1);
    // Both sum the same numbers, in another order where rows are few: ten units in the last place of logits of up to 10.
    within("logits", &logits.to_vec()?, &full.to_vec()?, 1e-5)
}

#[derive(Deserialize)]
struct Golden {
    prompt_ids: Vec<u32>,
    /// The prompt's and the new ones.
    greedy_ids: Vec<u32>,
    text: String,
}

fn greedy_text(device: &Device) -> Outcome {
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(stories().join("golden_greedy.json"))?)?;
    let decoder = load_decoder(&stories(), device)?;
    let tokens = golden.greedy_ids.len() - golden.prompt_ids.len();
    let ends = &decoder.blueprint().eos_token_ids;
    let mut streamed = golden.prompt_ids.clone();
    let generated = generate(&decoder, &(), &golden.prompt_ids, tokens, ends, &Sampling::default(), &mut |id| {
        streamed.push(id);
        Ok(true)
    })?;
    assert_eq!(streamed, golden.greedy_ids);
    assert_eq!(generated.ids, golden.greedy_ids[golden.prompt_ids.len()..]);
    assert_eq!(generated.finish_reason, FinishReason::Length);
    assert_eq!(Tokenizer::open(&stories())?.decode(&streamed, true)?, golden.text);
    Ok(())
}
