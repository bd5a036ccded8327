//! The figures of runs, and what several runs of a method come to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wgtune_models::Result;
use wgtune_models::error::Error;
use wgtune_models::formats::files::read_text;
use wgtune_models::train::sft::ACCURACY;

use crate::common::bytes;
use crate::report::Report;
use crate::tables::columns;
use crate::units::{digits, duration};

/// What a run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub method: String,
    pub seed: u64,
    pub out: PathBuf,
    /// The options of `sft` that it was made with.
    pub options: Vec<String>,
    /// By the keys of [`FIGURES`]; those that are known.
    pub figures: BTreeMap<String, f64>,
    /// What `sft` reported.
    pub report: Value,
    /// The step and the training loss that it saw, of every step.
    pub losses: Vec<(f64, f64)>,
}

/// The runs of a method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub method: String,
    pub runs: usize,
    #[serde(flatten)]
    pub figures: BTreeMap<String, Spread>,
}

/// A figure over several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    /// Of the runs, with one less than their number below the sum of squares; `None` of one run.
    pub deviation: Option<f64>,
}

/// A figure: its key, what a table calls it, and how it is shown.
pub type Figure = (&'static str, &'static str, fn(f64) -> String);

pub const LOSS: &str = "validation_loss";
pub const TRAINED: &str = "trained_parameters";
const CHOICE: &str = "choice_accuracy";
const CHOICE_BEFORE: &str = "choice_accuracy_before";

/// All that are told of a method, in the order of the table.
pub const FIGURES: [Figure; 12] = [
    ("validation_loss_before", "loss before", |loss| format!("{loss:.4}")),
    (LOSS, "loss after", |loss| format!("{loss:.4}")),
    ("token_accuracy_before", "tokens right before", share),
    ("token_accuracy", "tokens right after", share),
    (CHOICE_BEFORE, "choices right before", share),
    (CHOICE, "choices right after", share),
    (TRAINED, "trained", |count| format!("{count:.0}")),
    ("peak_tensor_bytes", "tensors at most", |count| bytes(count as u64)),
    ("tokens_per_second", "tokens/s", digits),
    ("seconds", "training", duration),
    ("forgetting", "probe's loss", |change| format!("{change:+.4}")),
    ("learning_rate", "learning rate", |rate| format!("{rate:e}")),
];

fn share(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// What is read of a line of `metrics.jsonl`.
#[derive(Deserialize)]
struct Line {
    step: f64,
    loss: f64,
    num_tokens: f64,
    tokens_per_second: f64,
    peak_tensor_bytes: f64,
}

impl Run {
    /// That in the folder `out`, whose figures are in its metrics too, also those of before it was resumed.
    ///
    /// # Errors
    /// Metrics that cannot be read.
    pub fn new(method: &str, seed: u64, out: &Path, options: Vec<String>, report: &Report) -> Result<Run> {
        let path = out.join("metrics.jsonl");
        let lines: Vec<Line> = read_text(&path)?
            .lines()
            .map(|line| serde_json::from_str(line).map_err(Error::json(&path)))
            .collect::<Result<_>>()?;
        let report = serde_json::to_value(report).expect("a report is JSON");
        let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
        let mut speeds: Vec<f64> = lines.iter().map(|line| line.tokens_per_second).collect();
        speeds.sort_by(f64::total_cmp);
        let mut seen = 0.0;
        let mut seconds =
            |line: &Line| (line.num_tokens - std::mem::replace(&mut seen, line.num_tokens)) / line.tokens_per_second;
        let forgetting = at("/probe/after/loss").zip(at("/probe/before/loss")).map(|(after, before)| after - before);
        let figures = [
            ("validation_loss_before", at("/validation_before/loss")),
            (LOSS, at("/validation_after/loss")),
            ("token_accuracy_before", at(&format!("/validation_before/{ACCURACY}"))),
            ("token_accuracy", at(&format!("/validation_after/{ACCURACY}"))),
            (TRAINED, at("/trained_parameters")),
            ("peak_tensor_bytes", lines.iter().map(|line| line.peak_tensor_bytes).reduce(f64::max)),
            ("tokens_per_second", speeds.get(speeds.len() / 2).copied()),
            ("seconds", Some(lines.iter().map(&mut seconds).sum())),
            ("forgetting", forgetting),
            ("learning_rate", at("/learning_rate")),
        ];
        let figures = figures.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))).collect();
        let losses = lines.iter().map(|line| (line.step, line.loss)).collect();
        Ok(Run { method: method.into(), seed, out: out.into(), options, figures, report, losses })
    }

    /// Takes the shares of held-out rows whose completion was the likeliest of all.
    pub fn choose(&mut self, before: f64, after: f64) {
        self.figures.extend([(CHOICE_BEFORE.to_string(), before), (CHOICE.to_string(), after)]);
    }
}

/// A row a method, in the runs' order.
pub fn summaries(runs: &[Run]) -> Vec<Summary> {
    let mut methods: Vec<&str> = runs.iter().map(|run| run.method.as_str()).collect();
    methods.dedup();
    let summary = |method: &str| {
        let own: Vec<&Run> = runs.iter().filter(|run| run.method == method).collect();
        let spread = |key: &str| Spread::of(&own.iter().filter_map(|run| run.figures.get(key).copied()).collect::<Vec<_>>());
        let figures = FIGURES.iter().filter_map(|(key, ..)| Some((key.to_string(), spread(key)?))).collect();
        Summary { method: method.into(), runs: own.len(), figures }
    };
    methods.into_iter().map(summary).collect()
}

impl Spread {
    /// Of these values; `None` where there are none.
    fn of(values: &[f64]) -> Option<Spread> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        (!values.is_empty()).then_some(Spread { mean, deviation })
    }
}

/// The figures that some method has.
pub fn known(methods: &[Summary]) -> Vec<Figure> {
    FIGURES.into_iter().filter(|(key, ..)| methods.iter().any(|method| method.figures.contains_key(*key))).collect()
}

impl Summary {
    /// A figure for a reader: the mean, and the deviation where there is one that is not 0.
    pub fn shown(&self, (key, _, show): &Figure) -> [String; 2] {
        let Some(Spread { mean, deviation }) = self.figures.get(*key) else { return [String::new(), String::new()] };
        let deviation = deviation.filter(|deviation| *deviation > 0.0);
        [show(*mean), deviation.map_or(String::new(), |deviation| format!("± {}", show(deviation).trim_start_matches('+')))]
    }
}

/// The table as text.
pub fn lines(methods: &[Summary]) -> Vec<String> {
    let known = known(methods);
    let head: Vec<&str> = ["method"].into_iter().chain(known.iter().map(|(_, name, _)| *name)).collect();
    let row = |method: &Summary| -> Vec<String> {
        let figures = known.iter().map(|figure| method.shown(figure).join(" ").trim_end().to_string());
        [method.method.clone()].into_iter().chain(figures).collect()
    };
    columns(&head, methods.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_runs_are_their_mean_and_deviation() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[2.0]), Some(Spread { mean: 2.0, deviation: None }));
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0]), Some(Spread { mean: 2.0, deviation: Some(1.0) }));
    }
}
