//! What a training run came to, for programs and for readers.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wgtune_engine::device::MatmulPrecision;
use wgtune_models::data::mixture::Share;
use wgtune_models::train::metrics::{Evaluation, Metrics};
use wgtune_models::wording::counted;

use crate::common::{Outcome, bytes, print_json, print_line};
use crate::probes::Scored;

/// What a run came to.
#[derive(Serialize)]
pub struct Report {
    pub out: PathBuf,
    pub device: String,
    /// What products rounded their operands to.
    pub matmul_precision: MatmulPrecision,
    pub steps: usize,
    /// Its greatest value.
    pub learning_rate: f64,
    pub trained_parameters: usize,
    pub all_parameters: usize,
    /// Trained of all.
    pub trained_share: f64,
    /// All over trained.
    pub trained_factor: f64,
    /// What the tensors of full tuning would take at least: see [`full_tuning_bytes`].
    pub full_tuning_bytes: u64,
    /// What the run saw of each file, where files were mixed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_before: Option<Evaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_after: Option<Evaluation>,
    /// The best of the evaluations on the way and at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_validation_loss: Option<f64>,
    /// The step whose weights were written.
    pub written_step: usize,
    #[serde(flatten)]
    pub training: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_process_bytes: Option<u64>,
    /// What went wrong on the way, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
    /// What was asked to show how much is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Scored>,
    /// What was not trained on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Scored>,
}

/// What began to go wrong at an update.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alarm {
    pub step: usize,
    pub text: String,
}

/// The alarms of these updates.
pub fn alarms(metrics: &[Metrics]) -> Vec<Alarm> {
    let of = |metrics: &Metrics| {
        let step = metrics.step;
        metrics.alarms.iter().map(move |text| Alarm { step, text: text.clone() }).collect::<Vec<_>>()
    };
    metrics.iter().flat_map(of).collect()
}

/// Bytes that training every one of so many parameters takes at least: in f32, it, its gradient and AdamW's two moments.
pub fn full_tuning_bytes(parameters: usize) -> u64 {
    16 * parameters as u64
}

/// What a run sees of one file, for a reader.
pub fn share_line(share: &Share) -> String {
    let Share { name, wanted, rows, of_rows, of_tokens, passes, .. } = share;
    let [wanted, of_rows, of_tokens] = [wanted, of_rows, of_tokens].map(|share| format!("{:.1} %", 100.0 * share));
    format!("{name}: {of_rows} of the rows ({rows}, {passes:.2} passes), {of_tokens} of the tokens; {wanted} by its weight")
}

/// The updates of a run, at a glance.
#[derive(Serialize)]
pub struct Summary {
    pub first_loss: Option<f64>,
    pub last_loss: Option<f64>,
    /// The median of the steps'.
    pub tokens_per_second: f64,
    pub peak_tensor_bytes: u64,
}

impl Summary {
    /// That of these updates.
    pub fn new(metrics: &[Metrics]) -> Summary {
        let mut speeds: Vec<f64> = metrics.iter().map(|metrics| metrics.tokens_per_second).collect();
        speeds.sort_by(f64::total_cmp);
        Summary {
            first_loss: metrics.first().map(|metrics| metrics.loss),
            last_loss: metrics.last().map(|metrics| metrics.loss),
            tokens_per_second: speeds.get(speeds.len() / 2).copied().unwrap_or(0.0),
            peak_tensor_bytes: metrics.iter().map(|metrics| metrics.peak_tensor_bytes).max().unwrap_or(0),
        }
    }
}

/// The name of a figure, for a reader.
pub fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

impl Report {
    /// Prints it, as JSON or for a reader.
    pub fn print(&self, json: bool) -> Outcome {
        if json { print_json(self) } else { self.lines().iter().try_for_each(|line| print_line(line)) }
    }

    /// The figures for a reader.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("wrote {} after {} on {}", self.out.display(), counted(self.steps, "step"), self.device)];
        if let (Some(before), Some(after)) = (&self.validation_before, &self.validation_after) {
            let of = |(name, after): (&Cow<str>, &f64)| {
                Some(format!(", {} {:.4} -> {after:.4}", spaced(name), before.figures.get(name)?))
            };
            let figures: String = after.figures.iter().filter_map(of).collect();
            lines.push(format!("validation loss {:.4} -> {:.4}{figures}", before.loss, after.loss));
        }
        if let (Some(step), Some(loss)) = (self.best_step, self.best_validation_loss) {
            let written = if step == self.written_step {
                "it is what was written".into()
            } else {
                format!("written is that of step {}", self.written_step)
            };
            lines.push(format!("the best was that of step {step}, validation loss {loss:.4}: {written}"));
        }
        let Summary { first_loss, last_loss, tokens_per_second, peak_tensor_bytes } = self.training;
        if let (Some(first), Some(last)) = (first_loss, last_loss) {
            lines.push(format!("training loss {first:.4} -> {last:.4}"));
            let process = self.peak_process_bytes.map_or(String::new(), |peak| format!(", {} of the process", bytes(peak)));
            lines.push(format!("{tokens_per_second:.0} tokens/s, {} of tensors at most{process}", bytes(peak_tensor_bytes)));
        }
        lines.push(format!(
            "trained {} of {} parameters ({:.2} %, 1 in {:.1}); full tuning takes at least {}: 16 bytes a parameter, for weight, \
             gradient and AdamW's two moments in f32",
            self.trained_parameters,
            self.all_parameters,
            100.0 * self.trained_share,
            self.trained_factor,
            bytes(self.full_tuning_bytes)
        ));
        lines.extend(self.alarms.iter().map(|Alarm { step, text }| format!("alarm at step {step}: {text}")));
        lines.extend(self.mixture.iter().map(share_line));
        lines.extend(self.probe.iter().map(|scored| scored.line("probe")));
        lines.extend(self.unseen.iter().map(|scored| scored.line("unseen")));
        lines
    }
}
