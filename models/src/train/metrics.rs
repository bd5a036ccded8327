//! The figures of a run: those of an update, and those of an evaluation.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::samples::Sample;

/// What a recipe tells beside its loss, by name: means over what the loss is a mean of.
pub type Figures = BTreeMap<Cow<'static, str>, f64>;

/// Figures of these names.
pub fn figures<const N: usize>(all: [(&'static str, f64); N]) -> Figures {
    all.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// One line of `metrics.jsonl`: what update `step` saw before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// From 1.
    pub step: usize,
    /// The mean loss of the update's batches, before the update.
    pub loss: f64,
    /// Of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Of this update.
    pub learning_rate: f64,
    /// What the recipe tells beside the loss.
    #[serde(flatten)]
    pub figures: Figures,
    /// What begins to go wrong, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// Of the rows held out, after the update; only where they were looked at then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Tokens seen in the run so far, padding not counted.
    pub num_tokens: u64,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Tokens a second of this step.
    pub tokens_per_second: f64,
    /// The most bytes of device memory in use in this step.
    pub peak_tensor_bytes: u64,
    /// The most bytes of memory that the process has held since it began, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_process_bytes: Option<u64>,
}

/// How well a model does on rows held out. With its step it is a line of `evaluations.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The mean loss; the less the better.
    pub loss: f64,
    /// What the recipe tells beside the loss.
    #[serde(flatten)]
    pub figures: Figures,
    /// Tokens that carry a loss.
    pub trained_tokens: usize,
    /// What was said, where the model was to speak; whoever evaluates knows no step.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

impl Evaluation {
    /// The line of `evaluations.jsonl` that it is, of a model that had seen so many updates.
    pub(super) fn line(&self, step: usize) -> impl Serialize {
        #[derive(Serialize)]
        struct Line<'a> {
            step: usize,
            #[serde(flatten)]
            evaluation: &'a Evaluation,
        }
        Line { step, evaluation: self }
    }

    /// The step and the evaluation of such a line; `None` where it is none.
    pub(super) fn of_line(mut line: Value) -> Option<(usize, Evaluation)> {
        let step = line.as_object_mut()?.remove("step")?.as_u64()?;
        Some((step as usize, serde_json::from_value(line).ok()?))
    }
}

/// The best of a run's evaluations on the way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The update that it followed.
    pub step: usize,
    /// Its loss.
    #[serde(serialize_with = "exact", deserialize_with = "from_exact")]
    pub loss: f64,
}

/// A number as text: JSON's reader may round its last bit, by which a resumed run would choose otherwise.
fn exact<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn from_exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| serde::de::Error::custom(format!("expected a finite number, and found {text:?}")))
}
