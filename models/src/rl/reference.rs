//! What a reference finds answers to be worth: found once, before the first update, and kept in the run's folder.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wgtune_engine::DType;

use crate::data::IGNORE;
use crate::data::encode::Example;
use crate::error::{Error, Result};
use crate::formats::safetensors::{self, TensorInfo, Weights};
use crate::hash::xxh3;
use crate::peft::Tuned;
use crate::train::answers::log_probs;
use crate::train::recipe::OnBatch;
use crate::train::run::{REFERENCE, RunDirectory};

/// The name of the tensor.
const LOG_PROBS: &str = "log_probs";
/// The key of the metadata with a hash of the answers.
const ANSWERS: &str = "answers";

/// Examples that a reference is asked of.
pub trait Referred {
    /// All of them, in one order.
    fn examples(&self) -> Vec<&Example>;

    /// Hears how likely it finds each.
    fn refer(&mut self, log_probs: Vec<f32>);
}

/// Where the model that a run begins with stands.
#[derive(Clone)]
pub enum Reference {
    /// Beside the one that is trained: the bare model, which an adapter leaves as it is.
    Beside(Box<Tuned>),
    /// In its place: it is what is trained, as it is before the first update.
    Itself,
}

impl Reference {
    /// Tells what is trained on and what was held out how likely the reference finds each example.
    ///
    /// # Errors
    /// As [`log_probs`](Self::log_probs).
    pub fn tell<R: Referred>(
        &self,
        training: &mut R,
        held_out: Option<&mut R>,
        batch_size: usize,
        (model, step): (&Tuned, usize),
        run: &RunDirectory,
        on_batch: &mut OnBatch,
    ) -> Result<()> {
        let trained = training.examples().len();
        let mut found = {
            let of_held_out = held_out.as_ref().map(|held_out| held_out.examples()).unwrap_or_default();
            let all: Vec<&Example> = training.examples().into_iter().chain(of_held_out).collect();
            self.log_probs(&all, batch_size, (model, step), run, on_batch)?
        };
        let rest = found.split_off(trained);
        training.refer(found);
        if let Some(held_out) = held_out {
            held_out.refer(rest);
        }
        Ok(())
    }

    /// The summed log-probability of each answer, so many answers at once: as they stand in the run's folder, or found now.
    ///
    /// # Errors
    /// What stands in the folder is of other answers, or is not there, and the run has gone on without it; as [`log_probs`].
    pub fn log_probs(
        &self,
        answers: &[&Example],
        batch_size: usize,
        (model, step): (&Tuned, usize),
        run: &RunDirectory,
        on_batch: &mut OnBatch,
    ) -> Result<Vec<f32>> {
        let path = run.path().join(REFERENCE);
        let hash = xxh3(answers.iter().flat_map(|answer| answer.ids.iter().chain([&IGNORE])).map(|word| word.to_le_bytes()));
        if path.exists() {
            let weights = Weights::open_file(&path)?;
            let found = weights.get(LOG_PROBS)?.to_f32();
            if weights.metadata().get(ANSWERS) == Some(&hash) && found.len() == answers.len() {
                return Ok(found);
            }
            return Err(Error::Data { message: format!("{} is of other answers: expected those of this run", path.display()) });
        }
        let found = match self {
            Reference::Beside(bare) => {
                let vocabulary = bare.decoder.blueprint().vocab_size;
                // It has no virtual tokens.
                let bared: Vec<Example> = answers.iter().map(|answer| answer.without_virtual_tokens(vocabulary)).collect();
                log_probs(bare, &bared.iter().collect::<Vec<_>>(), batch_size, on_batch)?
            }
            Reference::Itself if step == 0 => log_probs(model, answers, batch_size, on_batch)?,
            Reference::Itself => {
                let path = path.display();
                let message = format!("{path} is missing, and the model is no longer what the run began with: expected the file");
                return Err(Error::Data { message });
            }
        };
        let infos = [TensorInfo { name: LOG_PROBS.into(), dtype: DType::F32, shape: vec![found.len()] }];
        let metadata = BTreeMap::from([(ANSWERS.to_string(), hash)]);
        let bytes = |_: &TensorInfo| Ok(Cow::Owned(found.iter().flat_map(|value| value.to_le_bytes()).collect()));
        safetensors::save(&path, &infos, &metadata, bytes)?;
        Ok(found)
    }
}
