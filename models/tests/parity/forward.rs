//! Logits, losses and gradients of one pass, bare and with an adapter.

use std::sync::Arc;

use serde_json::json;
use wgtune_engine::{Device, Tensor, ops};
use wgtune_models::data::IGNORE;
use wgtune_models::peft::{self, Full, Settings, Start, Tuned};
use wgtune_models::transformer::Forward;
use wgtune_models::transformer::load_decoder;

use crate::compare::{relative, within};
use crate::fixtures::{Expected, LORAS, MODELS, Tokens, base, begun, path, tuned};
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
    for name in LORAS.into_iter().chain(["lora_rslora", "lora_pissa", "lora_olora"]).chain(tuned()) {
        checks.push(Check::new(format!("{name}: logits and loss"), move |device| adapted_logits(device, name)));
    }
    for checkpoint_blocks in [false, true] {
        let how = if checkpoint_blocks { ", blocks recomputed" } else { "" };
        for name in LORAS.into_iter().chain(tuned()) {
            let check = move |device: &Device| adapted_gradients(device, name, checkpoint_blocks);
            checks.push(Check::new(format!("{name}: gradients{how}"), check));
        }
    }
    checks.push(Check::new("llama: gradients of some parameters alone", partial_gradients));
    for name in ["llama", "qwen2", "gpt2"] {
        checks.push(Check::new(format!("{name}: untrained adapters leave it as it is"), move |device| untrained(device, name)));
    }
    checks
}

/// What begins as nothing changes nothing: LoRA, bottlenecks and IA3 leave the bits. But where a layer has a bias and ends a sub-layer,
/// as in GPT-2, the CPU begins a product's sums with bias and residual together, unless something comes between the two: rounding
/// then differs.
fn untrained(device: &Device, name: &str) -> Outcome {
    let bare = Tuned::bare(load_decoder(&path(name), device)?);
    let logits = |model: &Tuned| model.logits(&[3, 14, 15, 9, 2, 6, 5]).to_vec();
    let expected = logits(&bare)?;
    let is_exact = !(name == "gpt2" && device.is_cpu());
    for (method, chosen) in [
        ("lora", json!({})),
        ("adapters", json!({"reduction-factor": 4})),
        ("adapters", json!({"reduction-factor": 4, "bottleneck": "houlsby"})),
        ("ia3", json!({})),
    ] {
        let entry = peft::method(method).expect("it is in the list");
        let settings = Settings::new(entry, |name| chosen.get(name).cloned());
        let encode = |_: &str| unreachable!("no text is tokenised");
        let start = Start { decoder: bare.decoder.clone(), base: name, seed: 3, encode: &encode };
        let found = logits(&(entry.begin)(&settings, start)?)?;
        assert!(!is_exact || found == expected, "{method}");
        within(method, &found, &expected, ABSOLUTE)?;
    }
    Ok(())
}

fn logits(device: &Device, name: &str) -> Outcome {
    let decoder = load_decoder(&path(name), device)?;
    compare_logits(&Tuned::bare(decoder), &Expected::of(name))
}

fn gradients(device: &Device, name: &str, checkpoint_blocks: bool) -> Outcome {
    let model = Tuned::bare(load_decoder(&path(name), device)?).requiring_grad();
    compare_gradients(&model, checkpoint_blocks, &Expected::of(name))
}

fn adapted_logits(device: &Device, name: &str) -> Outcome {
    let model = peft::open(&path(name), load_decoder(&path(base(name)), device)?)?;
    let expected = Expected::of(name);
    compare_logits(&model, &expected)?;
    let loss = mean_loss(&model, &model.forward(), &expected);
    within("loss", &loss.to_vec()?, &expected.floats("loss"), ABSOLUTE)
}

fn adapted_gradients(device: &Device, name: &str, checkpoint_blocks: bool) -> Outcome {
    let model = begun(name, device)?.requiring_grad();
    compare_gradients(&model, checkpoint_blocks, &Expected::of(name))
}

/// Those of the whole model's training, and no others.
fn partial_gradients(device: &Device) -> Outcome {
    let decoder = load_decoder(&path("llama"), device)?;
    let patterns = ["lm_head.*", "model.layers.1.*", "*norm*"].map(String::from).to_vec();
    let method = Arc::new(Full::new(Some(patterns), &decoder)?);
    let model = Tuned::of(method, decoder).requiring_grad();
    let trained: Vec<String> = model.parameters().into_iter().map(|(name, _)| name).collect();
    // A head; nine parameters of the last block; two norms of the first, and the last norm.
    assert_eq!(trained.len(), 1 + 9 + 3, "{trained:?}");
    let expected = Expected::of("llama");
    let gradients = mean_loss(&model, &model.forward(), &expected).backward();
    for (name, parameter) in model.decoder.parameters() {
        match gradients.get(parameter) {
            Some(gradient) => relative(&name, &gradient.to_vec()?, &expected.floats(&format!("grad.{name}")), RELATIVE)?,
            None => assert!(!trained.contains(&name), "no gradient reaches {name}"),
        }
    }
    Ok(())
}

/// A parameter, or its gradient, as it lies in the model's files.
pub fn as_stored(model: &Tuned, name: &str, tensor: &Tensor) -> Tensor {
    let is_own = model.decoder.parameters().iter().any(|(own, _)| own == name);
    let is_transposed = is_own && model.decoder.blueprint().family.names.is_transposed(name, tensor.rank());
    if is_transposed { tensor.transpose() } else { tensor.clone() }
}

/// Those of virtual tokens too.
fn compare_logits(model: &Tuned, expected: &Expected) -> Outcome {
    let (decoder, forward) = (&model.decoder, model.forward());
    let input = Tokens::of(expected).behind(&model.opening()).input(decoder, &forward);
    let logits = decoder.logits(&decoder.hidden(&input, &forward));
    within("logits", &logits.to_vec()?, &expected.floats("logits"), ABSOLUTE)
}

/// The loss, and the gradient of each trained parameter; they must be those that the reference trained.
fn compare_gradients(model: &Tuned, checkpoint_blocks: bool, expected: &Expected) -> Outcome {
    let forward = Forward { checkpoint_blocks, ..model.forward() };
    let loss = mean_loss(model, &forward, expected);
    within("loss", &loss.to_vec()?, &expected.floats("loss"), ABSOLUTE)?;
    let gradients = loss.backward();
    let mut names: Vec<String> = model.parameters().iter().map(|(name, _)| expected.name("grad", name)).collect();
    names.sort();
    let mut trained: Vec<String> = expected.names().into_iter().filter(|name| name.starts_with("grad.")).collect();
    trained.sort();
    assert_eq!(names, trained);
    for (name, parameter) in model.parameters() {
        let gradient = gradients.get(parameter).ok_or_else(|| format!("no gradient reaches {name}"))?;
        assert_eq!(gradient.shape(), parameter.shape(), "{name}");
        relative(&name, &as_stored(model, &name, gradient).to_vec()?, &expected.floats(&expected.name("grad", &name)), RELATIVE)?;
    }
    Ok(())
}

/// The mean cross-entropy of the fixture's `input_ids`, each token predicted by those before it, virtual ones included.
pub fn mean_loss(model: &Tuned, forward: &Forward, expected: &Expected) -> Tensor {
    let decoder = &model.decoder;
    let tokens = Tokens::of(expected).behind(&model.opening());
    let hidden = decoder.hidden(&tokens.input(decoder, forward), forward);
    let targets = tokens.targets(decoder.blueprint().vocab_size);
    let count = targets.iter().filter(|&&target| target != IGNORE).count();
    let targets = decoder.device().tensor_u32(&targets, [tokens.rows, tokens.length]);
    let sum = ops::linear_cross_entropy(&hidden, decoder.output_weight(), &targets).loss;
    ops::scale(&sum, 1.0 / count as f32)
}
