//! Adapters with weights, and how far the logits of two models are apart.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use wgtune_engine::Device;
use wgtune_engine::random::Philox;
use wgtune_models::error::Result;
use wgtune_models::generate::check_finite;
use wgtune_models::model::Model;
use wgtune_models::peft::{self, METHODS, Tuned, WeightedSum};
use wgtune_models::transformer::load_decoder;
use wgtune_models::wording::listed;

use crate::common::{Force, Outcome, Task};

/// An adapter's folder, and how much of what it adds is taken.
#[derive(Clone)]
pub struct Weighted {
    pub directory: PathBuf,
    pub weight: f32,
}

/// Takes `DIR` or `DIR=WEIGHT`.
pub fn weighted() -> impl TypedValueParser<Value = Weighted> {
    OsStringValueParser::new().try_map(parse)
}

fn parse(text: OsString) -> std::result::Result<Weighted, String> {
    let pair = text.to_str().and_then(|text| text.rsplit_once('='));
    let number = pair.and_then(|(directory, weight)| Some((directory, weight.parse::<f32>().ok()?)));
    match (number, pair) {
        (Some((directory, weight)), _) if !directory.is_empty() && weight.is_finite() => {
            Ok(Weighted { directory: directory.into(), weight })
        }
        (Some(_), _) => Err("expected a folder, `=` and a finite weight".into()),
        (None, Some((directory, _))) if Path::new(directory).is_dir() && !Path::new(&text).exists() => {
            Err(format!("expected a finite weight behind `{directory}=`"))
        }
        (None, _) => Ok(Weighted { directory: text.into(), weight: 1.0 }),
    }
}

/// The same, each picked from its table where it is one.
pub fn picked(adapters: &[Weighted], task: &Task) -> Result<Vec<Weighted>> {
    let of = |Weighted { directory, weight }: &Weighted| Ok(Weighted { directory: task.of(directory)?, weight: *weight });
    adapters.iter().map(of).collect()
}

/// Checks that adapters were made for this model, unless they are to be taken for any, and that weights can hold what they add.
pub fn check(adapters: &[Weighted], model: &Model, force: &Force) -> Outcome {
    for Weighted { directory, .. } in adapters {
        force.check(model, Some(directory))?;
        check_merges(directory)?;
    }
    Ok(())
}

/// Checks that weights can hold what an adapter adds.
pub fn check_merges(directory: &Path) -> Outcome {
    let (method, adapter) = peft::method_of(directory)?;
    if adapter.merges {
        return Ok(());
    }
    let name = method.name;
    let mergeable = METHODS.iter().filter(|entry| entry.adapter.as_ref().is_some_and(|adapter| adapter.merges));
    let mergeable: Vec<String> = mergeable.map(|entry| entry.name.to_string()).collect();
    let expected = listed(&mergeable);
    Err(format!("an adapter of {name} adds what no weight of the model can hold: expected one of {expected}").into())
}

/// Loads a model and the weighted sum of adapters on it.
pub fn load_sum(model: &Model, adapters: &[Weighted], device: &Device) -> Result<WeightedSum> {
    let base = load_decoder(model.directory(), device)?;
    let part = |adapter: &Weighted| Ok((peft::open(&adapter.directory, base.clone())?, adapter.weight));
    let parts = adapters.iter().map(part).collect::<Result<_>>()?;
    WeightedSum::new(base, parts)
}

/// Of 32 random tokens, or as many as the model takes; all finite.
pub fn logits(model: &Tuned, seed: u64) -> Result<Vec<f32>> {
    let Tuned { decoder, .. } = model;
    let (random, vocabulary) = (Philox::new(seed), decoder.blueprint().vocab_size as u32);
    let count = decoder.blueprint().longest_text().map_or(32, |longest| longest.min(32)) as u64;
    let ids: Vec<u32> = (0..count).map(|place| random.word(place) % vocabulary).collect();
    check_finite(model.logits(&ids).to_vec()?)
}

/// The largest difference of the logits of one text.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_stands_behind_the_last_equals_sign() {
        let parsed = |text: &str| parse(text.into()).map(|adapter| (adapter.directory.display().to_string(), adapter.weight));
        let is = |text: &str, directory: &str, weight| assert_eq!(parsed(text), Ok((directory.into(), weight)), "{text}");
        is("a", "a", 1.0);
        is("a=0.7", "a", 0.7);
        is("a=-2", "a", -2.0);
        is("a=1e-1", "a", 0.1);
        is("lr=3=0.5", "lr=3", 0.5);
        is("a=b", "a=b", 1.0);
        is("=", "=", 1.0);
        for text in ["a=nan", "a=inf", "a=1e40", "=0.5"] {
            assert_eq!(parsed(text), Err("expected a folder, `=` and a finite weight".into()), "{text}");
        }
        // The folder of this crate's sources is there, and none of the other name.
        assert_eq!(parsed("src=x"), Err("expected a finite weight behind `src=`".into()));
    }
}
