//! The folder of a run: its metrics, and the checkpoint from which it can go on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wgtune_engine::optim::Moments;
use wgtune_engine::{DType, Shape, Tensor};

use super::sft::{Metrics, Progress};
use super::tuned::Tuned;
use crate::error::{Error, Result};
use crate::formats::files::{read_text, recover_directory, write_bytes, write_directory};
use crate::formats::safetensors::{self, TensorInfo, Weights};

const CHECKPOINT: &str = "checkpoint";
const STATE: &str = "state.json";
const TENSORS: &str = "tensors.safetensors";
const METRICS: &str = "metrics.jsonl";

/// A run's folder.
pub struct RunDirectory {
    path: PathBuf,
    /// What the run was started with; a checkpoint of other options is refused.
    options: Value,
}

#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
    num_tokens: u64,
    options: Value,
}

impl RunDirectory {
    /// The folder at `path`, made if it is not there, for a run with these options (everything that decides its numbers).
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn open(path: &Path, options: Value) -> Result<RunDirectory> {
        fs::create_dir_all(path).map_err(Error::io(path))?;
        Ok(RunDirectory { path: path.to_path_buf(), options })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a run in a folder that holds none.
    ///
    /// # Errors
    /// A checkpoint that is there already: nothing is overwritten.
    pub fn start(&self) -> Result<()> {
        let checkpoint = self.path.join(CHECKPOINT);
        recover_directory(&checkpoint)?;
        if checkpoint.exists() {
            let message = format!("{} holds a checkpoint: go on with --resume, or choose another --out", self.path.display());
            return Err(Error::Data { message });
        }
        write_bytes(&self.path.join(METRICS), b"")
    }

    /// Adds a line to `metrics.jsonl`, in one write.
    ///
    /// # Errors
    /// A full disk; the file is then as it was.
    pub fn append(&self, metrics: &Metrics) -> Result<()> {
        let path = self.path.join(METRICS);
        let mut line = serde_json::to_vec(metrics).expect("numbers are JSON");
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(Error::io(&path))?;
        let length = file.metadata().map_err(Error::io(&path))?.len();
        file.write_all(&line).map_err(|error| {
            // Half a line may have found room.
            let _ = file.set_len(length);
            Error::io(&path)(error)
        })
    }

    /// Writes the checkpoint: the trained parameters, the optimiser's moments and where the run stands. It replaces the one
    /// before as a whole.
    ///
    /// # Errors
    /// A full disk, or a device that failed; the checkpoint before is then still there.
    pub fn save(&self, model: &Tuned, progress: &Progress) -> Result<()> {
        let tensors = named(model, progress);
        let info = |(name, tensor): (&String, &&Tensor)| TensorInfo {
            name: name.clone(),
            dtype: DType::F32,
            shape: tensor.shape().to_vec(),
        };
        let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
        let state = State { step: progress.step, num_tokens: progress.num_tokens, options: self.options.clone() };
        write_directory(&self.path.join(CHECKPOINT), |directory| {
            let bytes = |info: &TensorInfo| Ok(Cow::Owned(tensors[&info.name].to_bytes()?));
            safetensors::save(&directory.join(TENSORS), &infos, &BTreeMap::new(), bytes)?;
            let state = serde_json::to_vec_pretty(&state).expect("plain data is JSON");
            write_bytes(&directory.join(STATE), &state)
        })
    }

    /// Puts model and progress where the checkpoint says, and cuts `metrics.jsonl` back to it; `false` where there is no
    /// checkpoint yet.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, or that is of a run with other options (naming the first that differs).
    pub fn resume(&self, model: &Tuned, progress: &mut Progress) -> Result<bool> {
        let directory = self.path.join(CHECKPOINT);
        recover_directory(&directory)?;
        if !directory.exists() {
            self.start()?;
            return Ok(false);
        }
        let path = directory.join(STATE);
        let state: State = serde_json::from_str(&read_text(&path)?).map_err(Error::json(&path))?;
        self.check_options(&state.options)?;
        let weights = Weights::open_file(&directory.join(TENSORS))?;
        let mut moments = Vec::new();
        for (name, parameter) in model.parameters() {
            let read = |kind: &str| read(&weights, &format!("{kind}.{name}"), parameter.shape());
            let tensor =
                |bytes: &[u8]| parameter.device().tensor_of_bytes(Arc::new(bytes.to_vec()), DType::F32, parameter.shape());
            moments.push(Moments { mean: tensor(read("mean")?), square: tensor(read("square")?) });
            parameter.replace(read("parameter")?);
        }
        progress.step = state.step;
        progress.num_tokens = state.num_tokens;
        progress.optimiser.restore(state.step as u64, moments);
        self.cut_metrics(state.step)?;
        Ok(true)
    }

    fn check_options(&self, saved: &Value) -> Result<()> {
        // Numbers may lose their last bit on the way to text and back: these go the same way.
        let now = serde_json::from_str(&self.options.to_string()).expect("options are JSON");
        match difference(saved, &now, "") {
            Some((key, saved, now)) => {
                let run = self.path.display();
                let message = format!(
                    "the run in {run} began with `{key}` {saved}, and now it is {now}: resume with the options that it began with"
                );
                Err(Error::Data { message })
            }
            None => Ok(()),
        }
    }

    fn cut_metrics(&self, steps: usize) -> Result<()> {
        let path = self.path.join(METRICS);
        if !path.exists() {
            return Ok(());
        }
        let text = read_text(&path)?;
        let kept: String = text.split_inclusive('\n').take(steps).collect();
        write_bytes(&path, kept.as_bytes())
    }
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

/// The first key of `now` with another value than in `saved`, and both values.
fn difference<'a>(saved: &'a Value, now: &'a Value, key: &str) -> Option<(String, &'a Value, &'a Value)> {
    match now {
        Value::Object(keys) if saved.is_object() => keys.iter().find_map(|(name, now)| {
            let dot = if key.is_empty() { "" } else { "." };
            difference(&saved[name], now, &format!("{key}{dot}{name}"))
        }),
        _ => (saved != now).then(|| (key.to_string(), saved, now)),
    }
}

/// Everything that a checkpoint holds, by name.
fn named<'a>(model: &'a Tuned, progress: &'a Progress) -> BTreeMap<String, &'a Tensor> {
    let mut all = BTreeMap::new();
    for ((name, tensor), moments) in model.parameters().into_iter().zip(progress.optimiser.moments()) {
        all.insert(format!("mean.{name}"), &moments.mean);
        all.insert(format!("square.{name}"), &moments.square);
        all.insert(format!("parameter.{name}"), tensor);
    }
    all
}
