//! What the stages of a run came to, read from their folders.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wgtune_models::Result;
use wgtune_models::error::Error;
use wgtune_models::formats::files::read_text;
use wgtune_models::train::metrics::Evaluation;
use wgtune_models::train::run::{METRICS, SAMPLES};
use wgtune_models::train::samples::Sample;

use super::stage::Stage;
use super::stages::{JUDGE, POLICIES};
use crate::report::{Alarm, Report};
use crate::tables::columns;

/// A stage that was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Made {
    /// Its folder, in the run's.
    pub name: String,
    /// The command and its options.
    pub command: Vec<String>,
    /// A hash of what it read.
    #[serde(default)]
    pub read: String,
    /// What the command reported.
    pub report: Value,
    /// By the names of the figures: the update and the value, of every update that has it.
    pub curves: BTreeMap<String, Vec<(f64, f64)>>,
    pub alarms: Vec<Alarm>,
    /// Of the policy that learns from its own answers: what it said to prompts held out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Spoken>,
    /// The shares of its answers to prompts held out that were safe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub safety: Vec<Change>,
}

/// What a stage came to.
pub enum Came {
    Trained(Box<Report>),
    /// What was reported of a judge.
    Judged(Value),
}

/// What was said to a prompt before a stage and after it, and what that is worth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spoken {
    /// A text, or a list of messages.
    pub prompt: Value,
    pub before: String,
    pub after: String,
    pub reward_before: Option<f64>,
    pub reward_after: Option<f64>,
}

/// A figure before a stage and after it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Change {
    pub before: f64,
    pub after: f64,
}

/// A curve of some stages.
pub struct Curve {
    pub title: &'static str,
    /// What lies along its axis.
    pub axis: &'static str,
    pub about: &'static str,
    /// The figure's names: commands differ in some.
    names: &'static [&'static str],
    /// The commands whose figure it is.
    of: &'static [&'static str],
}

/// What is drawn.
pub const CURVES: [Curve; 8] = [
    Curve {
        title: "Loss of demonstrations",
        axis: "loss",
        about: "In nats a token, over the batches of answers that were shown: the lower, the better they are predicted.",
        names: &["loss"],
        of: &["sft"],
    },
    Curve {
        title: "Accuracy of the reward model",
        axis: "accuracy",
        about: "The share of pairs whose better answer was given the higher score, before each update.",
        names: &["accuracy"],
        of: &["reward"],
    },
    Curve {
        title: "Reward",
        axis: "mean reward",
        about: "Of the answers that the policy drew itself, those of a phase together.",
        names: &["reward"],
        of: &POLICIES,
    },
    Curve {
        title: "Distance from the start",
        axis: "KL, nats an answer",
        about: "How far the policy went from what it was when its stage began. A reward that rises only with it is bought dearly.",
        names: &["objective/kl", "kl"],
        of: &POLICIES,
    },
    Curve {
        title: "Entropy",
        axis: "nats a token",
        about: "How open it was what comes next. Where it falls to nothing, all answers become one.",
        names: &["entropy"],
        of: &POLICIES,
    },
    Curve {
        title: "Length of answers",
        axis: "tokens",
        about: "The mean. A reward that rises with it may be one of length.",
        names: &["completions/mean_length"],
        of: &POLICIES,
    },
    Curve {
        title: "Error of values",
        axis: "squared error",
        about: "How far the critic was from what answers came to.",
        names: &["loss/value_avg"],
        of: &["ppo"],
    },
    Curve {
        title: "Loss of rewards",
        axis: "loss",
        about: "Of the pairs that the reward model learnt from: 0.69 is a guess.",
        names: &["loss"],
        of: &["reward"],
    },
];

impl Curve {
    /// Its points in a stage, if it is one of its figures.
    pub fn points<'a>(&self, made: &'a Made) -> Option<&'a Vec<(f64, f64)>> {
        let points = self.names.iter().find_map(|name| made.curves.get(*name));
        points.filter(|points| self.of.contains(&made.kind()) && !points.is_empty())
    }
}

impl Made {
    /// What a stage came to that reported this, with so many of the answers that it gave.
    ///
    /// # Errors
    /// A folder of the stage that cannot be read.
    pub fn new(stage: &Stage, out: &Path, came: &Came, samples: usize) -> Result<Made> {
        let report = match came {
            Came::Trained(report) => report,
            Came::Judged(report) => {
                let (name, command) = (stage.name.clone(), stage.words.clone());
                return Ok(Made { name, command, report: report.clone(), ..Made::default() });
            }
        };
        let folder = out.join(&stage.name);
        let lines: Vec<Map<String, Value>> = lines(&folder.join(METRICS))?;
        let step = |line: &Map<String, Value>| line.get("step").and_then(Value::as_f64);
        let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let is_drawn = |name: &str| CURVES.iter().any(|curve| curve.names.contains(&name)) || name.starts_with("rewards/");
        for line in &lines {
            for (name, value) in line.iter().filter(|(name, _)| is_drawn(name)) {
                if let (Some(step), Some(value)) = (step(line), value.as_f64()) {
                    curves.entry(name.clone()).or_default().push((step, value));
                }
            }
        }
        let said = |line: &Map<String, Value>| -> Vec<Alarm> {
            let texts = line.get("alarms").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let step = step(line).unwrap_or_default() as usize;
            texts.map(|text| Alarm { step, text: text.into() }).collect()
        };
        let figure = |name: &String| {
            let of = |evaluation: &Option<Evaluation>| {
                evaluation.as_ref().and_then(|evaluation| evaluation.figures.get(name.as_str()).copied())
            };
            Some(Change { before: of(&report.validation_before)?, after: of(&report.validation_after)? })
        };
        Ok(Made {
            name: stage.name.clone(),
            command: stage.words.clone(),
            read: String::new(),
            report: serde_json::to_value(report).expect("a report is JSON"),
            curves,
            alarms: lines.iter().flat_map(said).collect(),
            samples: spoken(&folder.join(SAMPLES), report.written_step, samples)?,
            safety: stage.safety.iter().filter_map(figure).collect(),
        })
    }

    /// Its command.
    pub fn kind(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// What rows held out say of it: the figure's name, and its values.
    fn held_out(&self) -> Option<(&'static str, Change)> {
        let (name, key) = match self.kind() {
            "sft" => ("loss", "loss"),
            "reward" => ("accuracy", "accuracy"),
            JUDGE => return None,
            _ => ("reward", "reward"),
        };
        let at = |when: &str| self.report.pointer(&format!("/validation_{when}/{key}")).and_then(Value::as_f64);
        Some((name, Change { before: at("before")?, after: at("after")? }))
    }

    /// The last point of a curve.
    fn last(&self, title: &str) -> Option<f64> {
        let curve = CURVES.iter().find(|curve| curve.title == title)?;
        curve.points(self).and_then(|points| points.last()).map(|(_, value)| *value)
    }

    /// Its row of the table, below [`HEAD`].
    pub fn row(&self) -> Vec<String> {
        let shown = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
        let held_out = self.held_out();
        let [before, after] = [held_out.map(|(_, change)| change.before), held_out.map(|(_, change)| change.after)];
        let steps = self.report["steps"].as_u64();
        vec![
            self.name.clone(),
            steps.map_or(String::new(), |steps| steps.to_string()),
            held_out.map_or(String::new(), |(name, _)| name.into()),
            shown(before),
            shown(after),
            shown(self.last("Distance from the start")),
            shown(self.last("Entropy")),
        ]
    }

    /// What is told of it beside its row, in words.
    pub fn line(&self) -> Option<String> {
        if self.kind() == JUDGE {
            let of = |key: &str| self.report[key].as_f64().unwrap_or_default();
            let (written, ties, bias) = (of("written"), 100.0 * of("ties"), 100.0 * of("position_bias"));
            let agreed = self.report["agreement"].as_f64().map(|share| format!(", {:.1} % as the rows say", 100.0 * share));
            let agreed = agreed.unwrap_or_default();
            return Some(format!(
                "{}: {written} rows, {ties:.1} % ties, {bias:.1} % otherwise in the other order{agreed}",
                self.name
            ));
        }
        self.safety_line()
    }

    fn safety_line(&self) -> Option<String> {
        let of = |Change { before, after }: &Change| format!("{:.1} % -> {:.1} %", 100.0 * before, 100.0 * after);
        let all: Vec<String> = self.safety.iter().map(of).collect();
        (!all.is_empty()).then(|| format!("{}: safe answers {}", self.name, all.join(", ")))
    }
}

/// What the columns of [`Made::row`] are.
pub const HEAD: [&str; 7] = ["stage", "updates", "held out", "before", "after", "KL", "entropy"];

/// The stages as text.
pub fn table(stages: &[Made]) -> Vec<String> {
    columns(&HEAD, stages.iter().map(Made::row))
}

/// The answers that were given before the first update and after this one.
fn spoken(path: &Path, last: usize, most: usize) -> Result<Vec<Spoken>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let all: Vec<Sample> = lines(path)?;
    // Others are what --sample-prompt asks.
    let of = |step: usize| all.iter().filter(move |sample| sample.step == step && sample.reward.is_some());
    let pair = |(before, after): (&Sample, &Sample)| Spoken {
        prompt: after.prompt.clone(),
        before: before.text.clone(),
        after: after.text.clone(),
        reward_before: before.reward,
        reward_after: after.reward,
    };
    Ok(of(0).zip(of(last)).take(most).map(pair).collect())
}

fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>> {
    read_text(path)?.lines().map(|line| serde_json::from_str(line).map_err(Error::json(path))).collect()
}
