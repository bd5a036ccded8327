//! Rows of one pass that are tuned in different ways: each comes to what it comes to alone.

use wgtune_engine::{Device, Tensor, ops};
use wgtune_models::generate::{Request, Sampling, generate};
use wgtune_models::peft::{self, Mixed, Tuned};
use wgtune_models::transformer::{Forward, load_decoder};

use crate::compare::within;
use crate::fixtures::{Expected, Tokens, path};
use crate::forward::ABSOLUTE;
use crate::{Check, Outcome};

/// Two of them with virtual tokens, two with a prefix, one without anything.
const METHODS: [&str; 8] = [
    "lora",
    "tuned/prompt_llama",
    "tuned/prefix_llama",
    "tuned/dora_llama",
    "tuned/ia3_llama",
    "",
    "tuned/adapters_houlsby_llama",
    "tuned/p_tuning_mlp_llama",
];

pub fn checks() -> Vec<Check> {
    vec![
        Check::new("rows of eight methods: tokens as alone", tokens),
        Check::new("rows of eight methods: losses and gradients as alone", gradients),
    ]
}

fn models(device: &Device) -> Result<Vec<Tuned>, libtest_mimic::Failed> {
    let bare = Tuned::bare(load_decoder(&path("llama"), device)?);
    let open = |name: &&str| if name.is_empty() { Ok(bare.clone()) } else { peft::open_beside(&bare, &path(name)) };
    Ok(METHODS.iter().map(open).collect::<wgtune_models::Result<_>>()?)
}

/// Two rows of each, of lengths of their own, in an order that parts them.
fn tokens(device: &Device) -> Outcome {
    let models = models(device)?;
    let request = |index: usize| Request {
        model: index % models.len(),
        prompt: (0..3 + 5 * index as u32 % 23).map(|at| (at * 13 + index as u32) % 64).collect(),
        max_new_tokens: 4 + index % 7,
        ends: Vec::new(),
        sampling: Sampling { temperature: 0.8, seed: index as u64, ..Sampling::default() },
    };
    let requests: Vec<Request> = (0..2 * models.len()).map(request).collect();
    let mut alone = Vec::new();
    for request in &requests {
        let only = [models[request.model].clone()];
        let request = Request { model: 0, ..request.clone() };
        alone.extend(generate(&only, 1, &mut [request].into_iter(), &mut ())?.into_iter().map(|generated| generated.ids));
    }
    for batch in [1, 5, requests.len()] {
        let together = generate(&models, batch, &mut requests.iter().cloned(), &mut ())?;
        assert_eq!(together.into_iter().map(|generated| generated.ids).collect::<Vec<_>>(), alone, "{batch} together");
    }
    Ok(())
}

/// Rows of one length behind virtual tokens, or tokens in their place, so that all stand in one pass.
fn gradients(device: &Device) -> Outcome {
    let models: Vec<Tuned> = models(device)?.into_iter().map(|model| added_on_the_tape(&model)).collect();
    let ids = Tokens::of(&Expected::of("llama")).ids;
    let own = |index: usize, model: &Tuned| {
        let taken = model.opening().len();
        let row: Vec<u32> = ids.iter().cycle().skip(index * 7).take(16 - taken).copied().collect();
        Tokens { rows: 1, length: 16 - taken, start: 0, ids: row }.behind(&model.opening())
    };
    let rows: Vec<Tokens> = models.iter().enumerate().map(|(index, model)| own(index, model)).collect();
    let loss = |tokens: &Tokens, forward: &Forward| -> Tensor {
        let decoder = &models[0].decoder;
        let hidden = decoder.hidden(&tokens.input(decoder, forward), forward);
        let targets = device.tensor_u32(&tokens.targets(64), [tokens.rows, tokens.length]);
        ops::linear_cross_entropy(&hidden, decoder.output_weight(), &targets).loss
    };
    let groups = models.iter().map(|model| (1, model.forward().tuning)).collect();
    let together = Tokens { rows: rows.len(), length: 16, start: 0, ids: rows.iter().flat_map(|row| row.ids.clone()).collect() };
    let mixed = loss(&together, &Forward { tuning: Mixed::of(groups), checkpoint_blocks: false });
    let (mixed_loss, mixed_gradients) = (mixed.to_vec()?, mixed.backward());
    let mut sum = 0.0;
    for (model, tokens) in models.iter().zip(&rows) {
        let alone = loss(tokens, &model.forward());
        sum += alone.item()?;
        if !model.method.is_adapter() {
            continue;
        }
        let gradients = alone.backward();
        for (name, parameter) in model.method.parameters() {
            let of = |gradients: &wgtune_engine::Gradients| {
                gradients.get(parameter).ok_or(format!("no gradient reaches {name}"))?.to_vec().map_err(|error| error.to_string())
            };
            let (alone, mixed) = (of(&gradients)?, of(&mixed_gradients)?);
            let largest = alone.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            // Sums of 8 to 64 terms in other orders, where more rows are multiplied: some ten units in the last place.
            within(format!("{} {name}", model.method.name()), &mixed, &alone, 1e-5 * largest.max(1.0))?;
        }
    }
    within("loss", &mixed_loss, &[sum], 8.0 * ABSOLUTE)
}

/// What is added, and nothing of the model's own.
fn added_on_the_tape(model: &Tuned) -> Tuned {
    Tuned::of(model.method.mapped(&Tensor::requiring_grad), model.decoder.clone())
}
