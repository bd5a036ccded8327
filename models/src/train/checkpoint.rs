//! A run's checkpoint: the trained parameters, the optimiser's moments and where the run stands.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wgtune_engine::optim::Moments;
use wgtune_engine::{DType, Shape, Tensor};

use super::metrics::Best;
use super::run::{CHECKPOINT, RunDirectory, step_of};
use super::update::Progress;
use crate::error::{Error, Result};
use crate::formats::files::{link_or_copy, names, read_text, recover_directory, remove, write_bytes, write_directory};
use crate::formats::safetensors::{self, TensorInfo, Weights};

const STATE: &str = "state.json";
/// What the recipe keeps.
const RECIPE: &str = "recipe.json";
const TENSORS: &str = "tensors.safetensors";
/// The parameters after the step of the best evaluation.
const BEST: &str = "best.safetensors";

#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
    num_tokens: u64,
    best: Option<Best>,
    #[serde(default)]
    waited: usize,
}

impl RunDirectory {
    /// Writes the checkpoint. It replaces the one before as a whole, which stays under another name where more are kept.
    ///
    /// # Errors
    /// A full disk, or a device that failed; the checkpoint before is then still there.
    pub fn save(&self, progress: &Progress, recipe: Option<Value>) -> Result<()> {
        let Progress { step, num_tokens, best, waited, .. } = *progress;
        let state = State { step, num_tokens, best, waited };
        let checkpoint = self.path().join(CHECKPOINT);
        self.set_aside(&checkpoint)?;
        write_directory(&checkpoint, |directory| {
            save_tensors(&directory.join(TENSORS), &named(progress))?;
            match best {
                Some(best) if best.step == step => save_tensors(&directory.join(BEST), &parameters(progress).collect())?,
                Some(_) => link_or_copy(&checkpoint.join(BEST), &directory.join(BEST))?,
                None => {}
            }
            if let Some(recipe) = recipe {
                write_bytes(&directory.join(RECIPE), recipe.to_string().as_bytes())?;
            }
            let state = serde_json::to_vec_pretty(&state).expect("plain data is JSON");
            write_bytes(&directory.join(STATE), &state)
        })?;
        self.remove_old()
    }

    /// Links the checkpoint that is there under its step's name, where more than the last one are kept.
    fn set_aside(&self, checkpoint: &Path) -> Result<()> {
        recover_directory(checkpoint)?;
        if self.kept() == 1 || !checkpoint.exists() {
            return Ok(());
        }
        let State { step, .. } = read_state(checkpoint)?;
        write_directory(&self.path().join(format!("{CHECKPOINT}-{step}")), |directory| {
            [STATE, TENSORS, BEST, RECIPE]
                .iter()
                .filter(|name| checkpoint.join(name).exists())
                .try_for_each(|name| link_or_copy(&checkpoint.join(name), &directory.join(name)))
        })
    }

    /// Removes those of earlier steps that are more than are kept.
    fn remove_old(&self) -> Result<()> {
        let mut steps: Vec<usize> = names(self.path())?.iter().filter_map(|name| step_of(name.to_str()?)).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        let old = steps.iter().skip(self.kept() - 1);
        old.map(|step| self.path().join(format!("{CHECKPOINT}-{step}"))).try_for_each(|path| remove(&path))
    }

    /// Puts the model's parameters and progress where the checkpoint says, and hands out what the recipe kept; `false` where there is
    /// none yet.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, or of other parameters.
    pub fn resume(&self, progress: &mut Progress) -> Result<(bool, Option<Value>)> {
        let directory = self.path().join(CHECKPOINT);
        recover_directory(&directory)?;
        if !directory.exists() {
            return Ok((false, None));
        }
        let path = directory.join(RECIPE);
        let recipe = match path.exists() {
            true => Some(serde_json::from_str(&read_text(&path)?).map_err(Error::json(&path))?),
            false => None,
        };
        let state = read_state(&directory)?;
        let weights = Weights::open_file(&directory.join(TENSORS))?;
        let mut moments = Vec::new();
        for (name, parameter) in parameters(progress) {
            let read = |kind: &str| read(&weights, &format!("{kind}.{name}"), parameter.shape());
            let tensor =
                |bytes: &[u8]| parameter.device().tensor_of_bytes(Arc::new(bytes.to_vec()), DType::F32, parameter.shape());
            moments.push(Moments { mean: tensor(read("mean")?), square: tensor(read("square")?) });
            parameter.replace(read("parameter")?);
        }
        if state.best.is_some() {
            let best = Weights::open_file(&directory.join(BEST))?;
            parameters(progress).try_for_each(|(name, parameter)| read(&best, &name, parameter.shape()).map(drop))?;
        }
        progress.step = state.step;
        progress.num_tokens = state.num_tokens;
        progress.best = state.best;
        progress.waited = state.waited;
        let Progress { parameters, optimiser, .. } = progress;
        optimiser.restore(parameters, state.step as u64, &moments);
        Ok((true, recipe))
    }

    /// Gives the model the parameters of the best evaluation in the checkpoint.
    ///
    /// # Errors
    /// A file that cannot be read, or is of other parameters.
    pub fn restore_best(&self, progress: &Progress) -> Result<()> {
        let weights = Weights::open_file(&self.path().join(CHECKPOINT).join(BEST))?;
        for (name, parameter) in parameters(progress) {
            parameter.replace(read(&weights, &name, parameter.shape())?);
        }
        Ok(())
    }
}

fn read_state(checkpoint: &Path) -> Result<State> {
    let path = checkpoint.join(STATE);
    serde_json::from_str(&read_text(&path)?).map_err(Error::json(&path))
}

/// Writes tensors as f32.
fn save_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let info =
        |(name, tensor): (&String, &Tensor)| TensorInfo { name: name.clone(), dtype: DType::F32, shape: tensor.shape().to_vec() };
    let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let bytes = |info: &TensorInfo| Ok(Cow::Owned(tensors[&info.name].to_bytes()?));
    safetensors::save(path, &infos, &BTreeMap::new(), bytes)
}

/// The bytes of a checkpoint's tensor, which must be f32 of this shape.
fn read<'a>(weights: &'a Weights, name: &str, shape: Shape) -> Result<&'a [u8]> {
    let view = weights.get(name)?;
    if *view.shape != *shape || view.dtype != DType::F32 {
        let message = format!("tensor `{name}` is {} {:?}; expected f32 {shape:?}", view.dtype, view.shape);
        return Err(Error::Weights { path: weights.path().to_path_buf(), message });
    }
    Ok(view.bytes)
}

fn parameters(progress: &Progress) -> impl Iterator<Item = (String, Tensor)> {
    progress.parameters.all().iter().map(|parameter| (parameter.name.clone(), parameter.tensor.detach()))
}

/// Everything that a checkpoint holds, by name.
fn named(progress: &Progress) -> BTreeMap<String, Tensor> {
    let mut all = BTreeMap::new();
    for ((name, tensor), moments) in parameters(progress).zip(progress.optimiser.moments(&progress.parameters)) {
        all.insert(format!("mean.{name}"), moments.mean);
        all.insert(format!("square.{name}"), moments.square);
        all.insert(format!("parameter.{name}"), tensor);
    }
    all
}
