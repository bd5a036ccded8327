//! What commands share that train on texts: how these become rows, and what a run would take.

use clap::{Args, ValueEnum};
use wgtune_models::data::batch::{Loader, Options};
use wgtune_models::data::mixture::{self, Unit};
use wgtune_models::train::sft::Sft;
use wgtune_models::wording::{counted, listed};

use crate::common::note;
use crate::data::{Prepared, Source, fingerprint};
use crate::training::Training;

/// How texts become rows.
#[derive(Args)]
pub struct Texts {
    /// Put several whole rows into one, up to --max-length
    #[arg(long)]
    pub packing: bool,
    /// What the weights behind --data are shares of [default: rows]
    #[arg(long, value_enum, value_name = "UNIT")]
    pub mix: Option<Mix>,
    /// Say how much memory the run would take, and what would make it less, and run nothing
    #[arg(long, conflicts_with_all = ["resume", "profile"])]
    pub plan: bool,
}

/// The names of [`Unit`].
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    /// Of the rows that are trained on
    Rows,
    /// Of their tokens
    Tokens,
}

impl Texts {
    /// Checks that the data's weights are ones, and that rows may be packed.
    pub fn check(&self, source: &Source) -> Result<(), String> {
        let is_mixed = source.weights()?.is_some();
        if self.mix.is_some() && !is_mixed {
            return Err("--mix says what weights are of, and --data has none: expected FILE:WEIGHT".into());
        }
        if self.packing && is_mixed {
            return Err(
                "--packing orders rows by their lengths, and the weights of --data by their shares: expected only one of the two"
                    .into(),
            );
        }
        Ok(())
    }

    /// The recipe that learns these rows, and hashes of them. Tells where no answer would learn to stop.
    pub fn learning(
        &self,
        training: &Training,
        data: Prepared,
        seed: u64,
        max_length: usize,
    ) -> (Sft, Vec<(&'static str, String)>) {
        let ends: Vec<u32> = data.ends.iter().map(|(id, _)| *id).collect();
        if !ends.is_empty() && !data.training.iter().any(|example| example.learns(&ends)) {
            let pieces: Vec<String> = data.ends.into_iter().map(|(_, piece)| piece).collect();
            note(format!(
                "no token that ends a text is learnt: expected {} in some row, or an answer may not stop",
                listed(&pieces)
            ));
        }
        let batches = |shuffle: bool| Options {
            batch_size: training.batch_size,
            packing: self.packing.then_some(max_length),
            shuffle,
            seed,
            padding: data.padding,
        };
        let mut hashes = vec![("data", data.rows), ("examples", fingerprint(&data.training))];
        let options = batches(!training.no_shuffle);
        let loader = match data.mixture {
            None => Loader::new(data.training, options),
            Some(sources) => {
                // No hash: it is short, and says more as it is.
                let part = |source: &mixture::Source| format!("{} of {}", source.weight, counted(source.examples, "example"));
                hashes.push(("mixture", sources.iter().map(part).collect::<Vec<_>>().join(", ")));
                let unit = if self.mix == Some(Mix::Tokens) { Unit::Tokens } else { Unit::Rows };
                Loader::mixed(data.training, sources, unit, options)
            }
        };
        let recipe = Sft {
            training: loader,
            validation: (!data.validation.is_empty()).then(|| Loader::new(data.validation, batches(false))),
        };
        (recipe, hashes)
    }
}
