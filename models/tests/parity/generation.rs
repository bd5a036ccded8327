//! Token by token with the cache: the logits of the full pass, and a story that another implementation wrote.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use wgtune_engine::{Device, ops};
use wgtune_models::formats::tokenizer::Tokenizer;
use wgtune_models::generate::{FinishReason, Listener, Request, Sampling, generate};
use wgtune_models::peft::Tuned;
use wgtune_models::transformer::{Cache, Forward, Row, load_decoder};

use crate::compare::within;
use crate::fixtures::{Expected, MODELS, Tokens, path};
use crate::{Check, Outcome};

/// How many tokens enter the cache at a time: a prompt, single tokens, several at once behind others, single tokens again.
const PIECES: [usize; 11] = [5, 1, 1, 1, 6, 1, 1, 1, 1, 1, 1];

pub fn checks() -> Vec<Check> {
    let cached = |name: &'static str| Check::new(format!("{name}: logits with the cache"), move |device| cached(device, name));
    let mut checks: Vec<Check> = MODELS.into_iter().map(cached).collect();
    let together = |name: &'static str| {
        Check::new(format!("{name}: rows alone and together"), move |device| rows_alone_and_together(device, name))
    };
    checks.extend(MODELS.into_iter().map(together));
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
    let full = decoder.logits(&decoder.hidden(&tokens.input(&decoder, &Forward::default()), &Forward::default()));

    let mut cache = Cache::new(decoder.blueprint(), device);
    let mut rows: Vec<Row> = (0..tokens.rows).map(|_| cache.row(&())).collect();
    let mut logits = Vec::new();
    let mut start = 0;
    for piece in PIECES {
        if start == tokens.length {
            break;
        }
        let new = tokens.columns(start..start + piece);
        let mut new: Vec<_> = rows.iter_mut().zip(new.ids.chunks(piece)).collect();
        let input = cache.input(&mut new, &());
        logits.push(decoder.logits(&decoder.hidden(&input, &Forward::default())));
        start += piece;
    }
    assert!(rows.iter().all(|row| row.tokens() == tokens.length));
    let logits = ops::cat(&logits.iter().collect::<Vec<_>>(), 1);
    // Both sum the same numbers, where rows are few in another order, through some ten sums: twenty units in the last place of logits
    // of up to 10; up to eleven were seen.
    within("logits", &logits.to_vec()?, &full.to_vec()?, 2e-5)
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
    let request = Request {
        model: 0,
        prompt: golden.prompt_ids.clone(),
        max_new_tokens: tokens,
        ends: decoder.blueprint().eos_token_ids.clone(),
        sampling: Sampling::default(),
    };
    let mut streamed = Streamed(golden.prompt_ids.clone());
    let generated = generate(&[Tuned::bare(decoder)], 1, &mut [request].into_iter(), &mut streamed)?;
    assert_eq!(streamed.0, golden.greedy_ids);
    assert_eq!(generated[0].ids, golden.greedy_ids[golden.prompt_ids.len()..]);
    assert_eq!(generated[0].finish_reason, FinishReason::Length);
    assert_eq!(Tokenizer::open(&stories())?.decode(&streamed.0, true)?, golden.text);
    Ok(())
}

struct Streamed(Vec<u32>);

impl Listener for Streamed {
    fn token(&mut self, _: usize, token: u32) -> wgtune_models::Result<bool> {
        self.0.push(token);
        Ok(true)
    }
}

/// Rows of very different lengths, which cross pages and end at different times, drawn with seeds of their own.
fn rows_alone_and_together(device: &Device, name: &str) -> Outcome {
    let decoder = load_decoder(&path(name), device)?;
    // Learned positions end, and half of them are for the prompt.
    let blueprint = decoder.blueprint();
    let most = if blueprint.may_go_beyond() { usize::MAX } else { blueprint.max_position_embeddings / 2 };
    let request = |(seed, (length, max_new_tokens)): (u64, (u32, usize))| Request {
        model: 0,
        prompt: (0..length.min(most as u32)).map(|at| (at * 13 + length) % decoder.blueprint().vocab_size as u32).collect(),
        max_new_tokens: max_new_tokens.min(most),
        ends: Vec::new(),
        sampling: Sampling { temperature: 0.8, top_p: 0.9, seed, ..Sampling::default() },
    };
    let requests: Vec<Request> = (7..).zip([(3, 9), (90, 12), (1, 80), (62, 5), (17, 1)]).map(request).collect();
    let models = [Tuned::bare(decoder.clone())];
    let of = |batch: usize, requests: &[Request]| -> wgtune_models::Result<Vec<Vec<u32>>> {
        let generated = generate(&models, batch, &mut requests.iter().cloned(), &mut ())?;
        Ok(generated.into_iter().map(|generated| generated.ids).collect())
    };
    let mut alone = Vec::new();
    for request in &requests {
        alone.extend(of(1, std::slice::from_ref(request))?);
    }
    assert!(alone.iter().zip(&requests).all(|(ids, request)| ids.len() == request.max_new_tokens));
    for batch in [1, 2, 5] {
        assert_eq!(of(batch, &requests)?, alone, "{batch} together");
    }
    Ok(())
}
