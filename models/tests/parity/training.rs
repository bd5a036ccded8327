//! Ten AdamW steps of the recipe: losses, gradient norms, and what becomes of the parameters.

use std::ops::ControlFlow;

use serde_json::Map;
use wgtune_models::data::IGNORE;
use wgtune_models::data::batch::{Loader, Options};
use wgtune_models::data::encode::Example;
use wgtune_models::peft::Tuned;
use wgtune_models::train::event::Event;
use wgtune_models::train::metrics::Metrics;
use wgtune_models::train::record::{May, Record};
use wgtune_models::train::run::{Begin, RunDirectory};
use wgtune_models::train::schedule::{LearningRate, Schedule};
use wgtune_models::train::sft::Sft;
use wgtune_models::train::trainer::{Plan, Trainer};
use wgtune_models::transformer::load_decoder;

use crate::compare::within;
use crate::fixtures::{Expected, LORAS, begun, path, tuned};
use crate::forward::{ABSOLUTE, as_stored};
use crate::{Check, Outcome};

pub fn checks() -> Vec<Check> {
    let full = |name: &'static str| {
        Check::new(format!("full/{name}: ten steps"), move |device| {
            let model = Tuned::bare(load_decoder(&path(name), device)?).requiring_grad();
            compare(&model, &plan(1e-3, 0.1), &Expected::open(format!("full/{name}.safetensors")))
        })
    };
    let adapter = |name: &'static str| {
        Check::new(format!("{name}: ten steps"), move |device| {
            compare(&begun(name, device)?.requiring_grad(), &plan(1e-2, 0.01), &Expected::of(name))
        })
    };
    let adapters = LORAS.into_iter().chain(tuned()).map(adapter);
    [full("llama"), full("llama_tied")].into_iter().chain(adapters).collect()
}

fn plan(learning_rate: f64, weight_decay: f64) -> Plan {
    let steps = 10;
    let learning_rate = LearningRate { peak: learning_rate, warmup_steps: 0, total_steps: steps, schedule: Schedule::Constant };
    Plan {
        steps,
        accumulate: 1,
        learning_rate,
        weight_decay,
        clip: 1.0,
        checkpoint_blocks: false,
        seed: 0,
        eval_every: 0,
        patience: 0,
        keep_last: false,
        save_every: 0,
        save_after: std::time::Duration::ZERO,
    }
}

fn compare(model: &Tuned, plan: &Plan, expected: &Expected) -> Outcome {
    let metrics = run(model, loader(model, expected), plan, &mut |_| ())?;
    let column = |of: fn(&Metrics) -> f64| metrics.iter().map(|step| of(step) as f32).collect::<Vec<f32>>();
    within("losses", &column(|step| step.loss), &expected.floats("losses"), ABSOLUTE)?;
    within("grad_norms", &column(|step| step.grad_norm), &expected.floats("grad_norms"), ABSOLUTE)?;
    for (name, parameter) in model.parameters() {
        let last = expected.name("final", &name);
        // Where keys are not rotated, their bias moves all scores of a query alike: its gradient is rounding alone, which AdamW
        // makes as large as any.
        if name.ends_with("c_attn.bias") {
            continue;
        }
        // The fixtures of full training keep one parameter of each kind.
        if model.method.is_adapter() || expected.names().contains(&last) {
            within(&last, &as_stored(model, &name, &parameter.detach()).to_vec()?, &expected.floats(&last), ABSOLUTE)?;
        }
    }
    Ok(())
}

/// Trains in a folder that is thrown away; `on_step` hears how many updates are done.
pub fn run(model: &Tuned, training: Loader, plan: &Plan, on_step: &mut dyn FnMut(usize)) -> wgtune_models::Result<Vec<Metrics>> {
    let folder = tempfile::tempdir().expect("a folder for what is thrown away");
    let run = RunDirectory::open(folder.path(), Begin::New, Record::new("sft", Map::new(), Map::new()), &May::default())?;
    let mut metrics = Vec::new();
    let recipe = Sft { training, validation: None };
    Trainer::new(model.clone(), recipe, plan.clone(), run).train(&mut |event| {
        if let Event::Step(step) = event {
            metrics.push(step.clone());
            on_step(step.step);
        }
        ControlFlow::Continue(())
    })?;
    Ok(metrics)
}

/// The fixture's batches [steps, B, T], every token of which carries a loss.
fn loader(model: &Tuned, expected: &Expected) -> Loader {
    let shape = expected.shape("batches");
    let ids = expected.ids("batches");
    let opening = model.opening();
    let silent = vec![IGNORE; opening.len()];
    let example = |row: &[u32]| Example { ids: [&opening, row].concat(), labels: [&silent, row].concat() };
    let examples = ids.chunks(shape[2]).map(example);
    let options = Options { batch_size: shape[1], packing: None, shuffle: false, seed: 0, padding: 0 };
    Loader::new(examples.collect(), options)
}
