//! The loop with a recipe of its own: one that makes logits small.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use wgtune_engine::{Device, Tensor, ops};

use super::*;
use crate::formats::files::read_text;
use crate::train::metrics::Figures;
use crate::train::pass::Lesson;
use crate::train::recipe::{Loss, OnBatch};
use crate::train::record::{May, Record};
use crate::train::run::Begin;
use crate::train::schedule::Schedule;
use crate::transformer::new_decoder;
use crate::transformer::{Blueprint, Decoder, Rows};

/// Two tokens a batch; the loss is the sum of their logits' squares.
struct Small;

impl Lesson for [u32; 2] {
    fn rows(&self) -> Rows<'_> {
        Rows { count: 1, ids: self, positions: &[0, 1], segments: None }
    }

    fn tokens(&self) -> usize {
        self.len()
    }

    fn targets(&self) -> usize {
        self.len()
    }
}

impl Recipe for Small {
    type Batch = [u32; 2];

    fn batch(&self, index: usize) -> [u32; 2] {
        [index as u32 % 5, index as u32 % 3]
    }

    fn batches_per_epoch(&self) -> usize {
        15
    }

    fn loss(&self, decoder: &Decoder, _: &[u32; 2], hidden: &Tensor) -> Loss {
        let logits = decoder.logits(hidden);
        Loss { sum: ops::sum(&ops::mul(&logits, &logits)), figures: vec![("logit", ops::sum(&logits))] }
    }

    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        let Tuned { decoder, .. } = model.detach();
        let forward = model.forward();
        let hidden = decoder.hidden(&decoder.text(&[4, 4], &forward), &forward);
        let loss = self.loss(&decoder, &[4, 4], &hidden).sum.item()?;
        let heard = on_batch(1, 1);
        let evaluation = Evaluation { loss: loss.into(), figures: Figures::new(), trained_tokens: 2, samples: Vec::new() };
        if heard.is_break() { Err(Error::Interrupted) } else { Ok(Some(evaluation)) }
    }
}

fn model() -> Tuned {
    let config = json!({
        "model_type": "llama", "vocab_size": 5, "hidden_size": 4, "intermediate_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": 8, "tie_word_embeddings": true, "initializer_range": 0.5,
    });
    let config = Blueprint::from_json(Path::new("small"), config).unwrap();
    Tuned::bare(new_decoder(config, &Device::cpu(), 0).unwrap()).requiring_grad()
}

fn plan() -> Plan {
    Plan {
        steps: 9,
        accumulate: 2,
        learning_rate: LearningRate { peak: 1e-2, warmup_steps: 0, total_steps: 9, schedule: Schedule::Constant },
        weight_decay: 0.0,
        clip: 1.0,
        checkpoint_blocks: false,
        seed: 0,
        eval_every: 4,
        patience: 0,
        keep_last: false,
        save_every: 0,
        save_after: Duration::ZERO,
    }
}

/// Trains in a folder, stopped by its listener after each update of `stops`; the parameters, and the lines of metrics without
/// what the clock decides.
fn trained(stops: &[usize]) -> (Vec<Vec<f32>>, Vec<Value>, Outcome) {
    let folder = tempfile::tempdir().unwrap();
    let open = |begin| {
        let record = Record::new("small", Map::new(), Map::new());
        RunDirectory::open(folder.path(), begin, record, &May::default()).unwrap()
    };
    drop(open(Begin::New));
    let plan = plan();
    for stop in stops {
        let (model, run) = (model(), open(Begin::Resumed));
        let mut trainer = Trainer::new(model.clone(), Small, plan.clone(), run);
        trainer.resume().unwrap();
        let stopped = trainer.train(&mut |event| match event {
            Event::Step(metrics) if metrics.step == *stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert_eq!(trainer.step(), *stop);
    }
    let (model, run) = (model(), open(Begin::Resumed));
    let mut trainer = Trainer::new(model.clone(), Small, plan.clone(), run);
    assert_eq!(trainer.resume().unwrap(), !stops.is_empty());
    let outcome = trainer.train(&mut |_| ControlFlow::Continue(())).unwrap();
    let parameters = model.parameters().into_iter().map(|(_, tensor)| tensor.to_vec().unwrap()).collect();
    let text = read_text(&folder.path().join(METRICS)).unwrap();
    let without_clock = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let keys = line.as_object_mut().unwrap();
        keys.retain(|key, _| !key.starts_with("peak_") && key != "tokens_per_second");
        line
    };
    (parameters, text.lines().map(without_clock).collect(), outcome)
}

#[test]
fn a_recipe_is_its_batches_and_its_loss() {
    let (parameters, lines, outcome) = trained(&[]);
    assert_eq!(lines.len(), 9);
    for (index, line) in lines.iter().enumerate() {
        let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = ["step", "loss", "grad_norm", "learning_rate", "logit", "validation_loss", "num_tokens", "epoch"];
        let is_due = (index + 1) % 4 == 0;
        assert_eq!(keys, expected.into_iter().filter(|key| is_due || *key != "validation_loss").collect::<Vec<_>>());
        assert_eq!((&line["step"], &line["num_tokens"]), (&json!(index + 1), &json!(4 * (index + 1))));
    }
    let (before, after) = (outcome.before.unwrap(), outcome.after.unwrap());
    assert!(after.loss < before.loss, "{before:?} {after:?}");
    assert_eq!(outcome.best.map(|best| (best.step, best.loss)), Some((outcome.step, after.loss)));

    // Wherever it was stopped, it comes to the same.
    let (again, lines_again, outcome_again) = trained(&[1, 4, 6]);
    assert_eq!((again, lines_again), (parameters, lines));
    assert_eq!((outcome_again.before, outcome_again.after, outcome_again.best), (Some(before), Some(after), outcome.best));
}

#[test]
fn an_interrupt_before_the_first_update_leaves_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let record = Record::new("small", Map::new(), Map::new());
    let run = RunDirectory::open(folder.path(), Begin::New, record, &May::default()).unwrap();
    let (model, plan) = (model(), plan());
    let mut trainer = Trainer::new(model.clone(), Small, plan.clone(), run);
    let stopped = trainer.train(&mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_eq!((trainer.step(), trainer.resume().unwrap()), (0, false));
}

#[test]
fn a_run_that_moves_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let record = Record::new("small", Map::new(), Map::new());
    let run = RunDirectory::open(folder.path(), Begin::New, record, &May::default()).unwrap();
    let plan = plan();
    let still = Plan { learning_rate: LearningRate { peak: 0.0, ..plan.learning_rate }, ..plan };
    let outcome = Trainer::new(model(), Small, still, run).train(&mut |_| ControlFlow::Continue(()));
    assert!(matches!(outcome, Err(Error::Unmoved { steps: 9 })));
}

/// Its loss, and nothing of what it trains beside the model.
struct WithStill(Tensor);

impl Recipe for WithStill {
    type Batch = [u32; 2];

    fn batch(&self, index: usize) -> [u32; 2] {
        Small.batch(index)
    }

    fn batches_per_epoch(&self) -> usize {
        Small.batches_per_epoch()
    }

    fn parameters(&self) -> Vec<(String, &Tensor, f64)> {
        vec![("still".into(), &self.0, 1.0)]
    }

    fn loss(&self, decoder: &Decoder, batch: &[u32; 2], hidden: &Tensor) -> Loss {
        let Loss { sum, figures } = Small.loss(decoder, batch, hidden);
        Loss { sum: ops::add(&sum, &ops::scale(&ops::sum(&self.0), 0.0)), figures }
    }

    fn validate(&self, model: &Tuned, on_batch: &mut OnBatch) -> Result<Option<Evaluation>> {
        Small.validate(model, on_batch)
    }
}

#[test]
fn what_never_moves_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let alarms = |steps: usize| {
        let run =
            RunDirectory::open(folder.path(), Begin::Resumed, Record::new("small", Map::new(), Map::new()), &May::default());
        let model = model();
        let still = model.decoder.device().tensor(&[1.0], [1]).requiring_grad();
        let mut trainer = Trainer::new(model, WithStill(still), Plan { steps, eval_every: 0, ..plan() }, run.unwrap());
        trainer.resume().unwrap();
        trainer.train(&mut |_| ControlFlow::Continue(())).unwrap();
        let text = read_text(&folder.path().join(METRICS)).unwrap();
        text.lines().filter(|line| line.contains("1 of 12 parameters never moved in 50 updates, as still")).count()
    };
    // A run that goes on is told of as a whole.
    assert_eq!([alarms(49), alarms(52)], [0, 1]);
}
