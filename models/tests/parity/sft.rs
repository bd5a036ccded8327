//! TRL's SFT trainer, line by line of its metrics: rows of a file, encoded, padded, accumulated and trained. And that it
//! makes no difference whether rows are padded or packed.

use libtest_mimic::Failed;
use serde::Deserialize;
use wgtune_engine::{Device, ops};
use wgtune_models::data::batch::{Batch, Loader, Options};
use wgtune_models::data::encode::{Encoder, Example};
use wgtune_models::data::rows::{Columns, Dataset};
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::peft::Tuned;
use wgtune_models::train::schedule::{LearningRate, Schedule};
use wgtune_models::train::sft::{ACCURACY, evaluate};
use wgtune_models::train::trainer::Plan;
use wgtune_models::transformer::load_decoder;

use crate::compare::within;
use crate::fixtures::{Expected, MODELS, Tokens, path};
use crate::forward::ABSOLUTE;
use crate::training::run;
use crate::{Check, Outcome};

/// The trainer's options, under its names.
#[derive(Deserialize)]
struct Trainer {
    learning_rate: f64,
    lr_scheduler_type: String,
    warmup_steps: usize,
    max_steps: usize,
    per_device_train_batch_size: usize,
    gradient_accumulation_steps: usize,
    max_length: usize,
    weight_decay: f64,
    max_grad_norm: f64,
}

/// A line of the trainer's log.
#[derive(Deserialize)]
struct Line {
    loss: f32,
    grad_norm: f32,
    learning_rate: f32,
    entropy: f32,
    mean_token_accuracy: f32,
    num_tokens: f32,
    epoch: f32,
}

/// What a batch's predictions are like.
struct Predictions {
    entropy: f64,
    correct: f64,
    tokens: f64,
}

pub fn checks() -> Vec<Check> {
    let packed = |name: &'static str| Check::new(format!("{name}: packed as alone"), move |device| packed(device, name));
    let mut checks: Vec<Check> = MODELS.into_iter().map(packed).collect();
    checks.push(Check::new("sft: every step of TRL's trainer", steps));
    checks
}

fn steps(device: &Device) -> Outcome {
    let trainer: Trainer = serde_json::from_str(&std::fs::read_to_string(path("sft/options.json"))?)?;
    let lines = std::fs::read_to_string(path("sft/metrics.jsonl"))?;
    let lines: Vec<Line> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!((lines.len(), trainer.lr_scheduler_type.as_str()), (trainer.max_steps, "cosine"));

    let model = Tuned::bare(load_decoder(&path("llama"), device)?).requiring_grad();
    let (loader, plan) = (loader(&trainer, &model)?, plan(&trainer));
    let window = |step: usize| -> Vec<Predictions> {
        let batches = (0..plan.accumulate).map(|i| loader.batch(step * plan.accumulate + i));
        batches.map(|batch| predictions(&model, &batch)).collect()
    };
    let mut windows = vec![window(0)];
    let metrics = run(&model, loader.clone(), &plan, &mut |done| windows.push(window(done)))?;

    for ((got, line), window) in metrics.iter().zip(&lines).zip(&windows) {
        let step = got.step;
        let compare =
            |what: &str, got: f64, reference: f32| within(format!("step {step}: {what}"), &[got as f32], &[reference], ABSOLUTE);
        compare("loss", got.loss, line.loss)?;
        compare("grad_norm", got.grad_norm, line.grad_norm)?;
        compare("learning_rate", got.learning_rate, line.learning_rate)?;
        compare("num_tokens", got.num_tokens as f64, line.num_tokens)?;
        compare("epoch", got.epoch, line.epoch)?;
        // TRL logs the mean over a window's batches of each batch's mean; here every token counts the same. So its figures are
        // compared batch by batch, and ours with the tokens of those batches.
        let mean =
            |of: fn(&Predictions) -> f64| window.iter().map(|batch| of(batch) / batch.tokens).sum::<f64>() / window.len() as f64;
        compare("entropy, by batches", mean(|batch| batch.entropy), line.entropy)?;
        compare("accuracy, by batches", mean(|batch| batch.correct), line.mean_token_accuracy)?;
        let total = |of: fn(&Predictions) -> f64| window.iter().map(of).sum::<f64>();
        let share = |of: fn(&Predictions) -> f64| (total(of) / total(|batch| batch.tokens)) as f32;
        compare("entropy", got.figures["entropy"], share(|batch| batch.entropy))?;
        compare("accuracy", got.figures[ACCURACY], share(|batch| batch.correct))?;
    }
    assert_eq!(metrics.len(), lines.len());
    Ok(())
}

fn loader(trainer: &Trainer, model: &Tuned) -> wgtune_models::Result<Loader> {
    let template = ChatTemplate::open(&path("llama"))?;
    let encoder = Encoder {
        tokenizer: None,
        template: &template,
        vocab_size: model.decoder.blueprint().vocab_size,
        max_length: trainer.max_length,
        opening: &[],
        prefix: 0,
        split_text: false,
        last_turn_only: false,
    };
    let dataset = Dataset::open(&[path("sft/rows.jsonl")], &Columns::default())?;
    let (examples, report) = encoder.encode(&dataset, &dataset.rows)?;
    assert_eq!((report.rows, report.truncated), (8, 2), "{report}");
    let batch_size = trainer.per_device_train_batch_size;
    Ok(Loader::new(examples, Options { batch_size, packing: None, shuffle: false, seed: 0, padding: 2 }))
}

fn plan(trainer: &Trainer) -> Plan {
    Plan {
        steps: trainer.max_steps,
        accumulate: trainer.gradient_accumulation_steps,
        learning_rate: LearningRate {
            peak: trainer.learning_rate,
            warmup_steps: trainer.warmup_steps,
            total_steps: trainer.max_steps,
            schedule: Schedule::Cosine,
        },
        weight_decay: trainer.weight_decay,
        clip: trainer.max_grad_norm,
        checkpoint_blocks: false,
        seed: 0,
        eval_every: 0,
        patience: 0,
        keep_last: false,
        save_every: 0,
        save_after: std::time::Duration::ZERO,
    }
}

fn predictions(model: &Tuned, batch: &Batch) -> Predictions {
    let model = model.detach();
    let (decoder, forward) = (&model.decoder, model.forward());
    let (device, shape) = (decoder.device(), [batch.rows, batch.length]);
    let tokens = Tokens { rows: batch.rows, length: batch.length, start: 0, ids: batch.ids.clone() };
    let hidden = decoder.hidden(&tokens.input(decoder, &forward), &forward);
    let output = ops::linear_cross_entropy(&hidden, decoder.output_weight(), &device.tensor_u32(&batch.targets, shape));
    let item = |tensor: &wgtune_engine::Tensor| f64::from(tensor.item().expect("the device works"));
    Predictions { entropy: item(&output.entropy), correct: item(&output.correct), tokens: batch.trained_tokens() as f64 }
}

fn packed(device: &Device, name: &str) -> Outcome {
    let ids = Tokens::of(&Expected::of(name)).ids;
    // No longer than the 8 positions from which on `llama_rope_dynamic` has other frequencies for every length.
    let examples: Vec<Example> = [8, 5, 7, 3, 8].iter().map(|&length| text(&ids[length..2 * length])).collect();
    let model = Tuned::bare(load_decoder(&path(name), device)?);
    let loss = |batch_size, packing| -> Result<f32, Failed> {
        let options = Options { batch_size, packing, shuffle: false, seed: 0, padding: 0 };
        let loader = Loader::new(examples.clone(), options);
        let is_packed = (0..loader.batches_per_epoch()).any(|index| loader.batch(index).is_packed());
        assert_eq!(is_packed, packing.is_some());
        Ok(evaluate(&model, &loader, &mut |_, _| std::ops::ControlFlow::Continue(()))?.loss as f32)
    };
    let alone = loss(1, None)?;
    // The same sums, in another order: some units in the last place of a loss of up to 7.
    within("padded", &[loss(3, None)?], &[alone], 1e-5)?;
    within("packed", &[loss(2, Some(16))?], &[alone], 1e-5)
}

fn text(ids: &[u32]) -> Example {
    Example { ids: ids.to_vec(), labels: ids.to_vec() }
}
