//! Logits, losses and gradients of one pass, bare and with an adapter.

use std::sync::Arc;

use wgtune_engine::{Device, Tensor, ops};
use wgtune_models::formats::model::{Use, load_decoder};
use wgtune_models::peft::Lora;
use wgtune_models::transformer::{Decoder, Forward};

use crate::compare::{relative, within};
use crate::fixtures::{Expected, MODELS, Tokens, path};
use crate::{Check, Outcome};

/// For logits of up to 10 and losses of up to 7. Both sides add in orders of their own through some ten sums of 8 to 64 terms;
/// a unit in the last place is 1e-6 there, and up to ten of them were seen on a CPU. A scale that is wrong by 1e-4 fails.
pub const ABSOLUTE: f32 = 1e-4;
/// Of the norm of a parameter's gradient: 1e-7 is one rounding, and up to 3e-6 was seen. No gradient of the fixtures is near
/// zero (the smallest norm is 0.06), so none needs an absolute bound.
pub const RELATIVE: f64 = 1e-4;

pub fn checks() -> Vec<Check> {
    let of_model = |name: &'static str| {
        [
            Check::new(format!("{name}: logits"), move |device| logits(device, name)),
            Check::new(format!("{name}: loss and gradients"), move |device| gradients(device, name, false)),
            Check::new(format!("{name}: gradients, blocks recomputed"), move |device| gradients(device, name, true)),
        ]
    };
    let mut checks: Vec<Check> = MODELS.into_iter().flat_map(of_model).collect();
    for name in ["lora", "lora_rslora", "lora_pissa", "lora_olora"] {
        checks.push(Check::new(format!("{name}: logits and loss"), move |device| adapted_logits(device, name)));
    }
    for checkpoint_blocks in [false, true] {
        let how = if checkpoint_blocks { ", blocks recomputed" } else { "" };
        checks.push(Check::new(format!("lora: gradients{how}"), move |device| adapted_gradients(device, checkpoint_blocks)));
    }
    checks
}

fn logits(device: &Device, name: &str) -> Outcome {
    let decoder = load_decoder(&path(name), device, Use::Frozen)?;
    compare_logits(&decoder, &Forward::default(), &Expected::of(name))
}

fn gradients(device: &Device, name: &str, checkpoint_blocks: bool) -> Outcome {
    let decoder = load_decoder(&path(name), device, Use::Trained)?;
    let forward = Forward { checkpoint_blocks, ..Forward::default() };
    compare_gradients(&decoder, decoder.parameters(), &forward, &Expected::of(name))
}

fn adapted_logits(device: &Device, name: &str) -> Outcome {
    let decoder = load_decoder(&path("llama"), device, Use::Frozen)?;
    let forward = Forward { tuning: Arc::new(Lora::open(&path(name), &decoder)?), checkpoint_blocks: false };
    let expected = Expected::of(name);
    compare_logits(&decoder, &forward, &expected)?;
    within("loss", &mean_loss(&decoder, &forward, &expected).to_vec()?, &expected.floats("loss"), ABSOLUTE)
}

fn adapted_gradients(device: &Device, checkpoint_blocks: bool) -> Outcome {
    let decoder = load_decoder(&path("llama"), device, Use::Frozen)?;
    let lora = Lora::open(&path("lora"), &decoder)?.requiring_grad();
    let forward = Forward { tuning: Arc::new(lora.clone()), checkpoint_blocks };
    compare_gradients(&decoder, lora.parameters(), &forward, &Expected::of("lora"))
}

fn compare_logits(decoder: &Decoder, forward: &Forward, expected: &Expected) -> Outcome {
    let input = Tokens::of(expected).input(decoder.device());
    let logits = decoder.logits(&decoder.hidden(&input, forward));
    within("logits", &logits.to_vec()?, &expected.floats("logits"), ABSOLUTE)
}

/// The loss, and the gradient of each of `parameters`, which must be those that the reference trained.
fn compare_gradients(decoder: &Decoder, parameters: Vec<(String, &Tensor)>, forward: &Forward, expected: &Expected) -> Outcome {
    let loss = mean_loss(decoder, forward, expected);
    within("loss", &loss.to_vec()?, &expected.floats("loss"), ABSOLUTE)?;
    let gradients = loss.backward();
    let mut names: Vec<String> = parameters.iter().map(|(name, _)| format!("grad.{name}")).collect();
    names.sort();
    let mut trained: Vec<String> = expected.names().into_iter().filter(|name| name.starts_with("grad.")).collect();
    trained.sort();
    assert_eq!(names, trained);
    for (name, parameter) in parameters {
        let gradient = gradients.get(parameter).ok_or_else(|| format!("no gradient reaches {name}"))?;
        assert_eq!(gradient.shape(), parameter.shape(), "{name}");
        relative(&name, &gradient.to_vec()?, &expected.floats(&format!("grad.{name}")), RELATIVE)?;
    }
    Ok(())
}

/// The mean cross-entropy of the fixture's `input_ids`, each token predicted by those before it.
pub fn mean_loss(decoder: &Decoder, forward: &Forward, expected: &Expected) -> Tensor {
    let (tokens, device) = (Tokens::of(expected), decoder.device());
    let hidden = decoder.hidden(&tokens.input(device), forward);
    let targets = device.tensor_u32(&tokens.targets(), [tokens.rows, tokens.length]);
    let sum = ops::linear_cross_entropy(&hidden, decoder.output_weight(), &targets).loss;
    ops::scale(&sum, 1.0 / (tokens.rows * (tokens.length - 1)) as f32)
}
