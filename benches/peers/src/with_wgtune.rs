//! wgtune, on the CPU or a GPU.

use std::error::Error;

use serde_json::json;
use wgtune_engine::device::{AdapterInfo, Config, adapters};
use wgtune_engine::optim::{AdamW, AdamWConfig, Parameter, Parameters};
use wgtune_engine::{Device, Tensor, ops};
use wgtune_models::transformer::Blueprint;
use wgtune_models::transformer::{Decoder, Forward, Rows};

use crate::gpt;
use crate::work::{EPSILON, Engine, Job, Then, Work};

pub struct Wgtune {
    name: &'static str,
    device: Device,
}

impl Wgtune {
    /// Tuned, as the program is, with what is found kept in the user's cache folder.
    pub fn open(name: &'static str, device: &str) -> Result<Wgtune, Box<dyn Error>> {
        let cache = dirs::cache_dir().map(|folder| folder.join("wgtune"));
        Ok(Wgtune { name, device: Device::open_with(device, &Config { cache, ..Config::default() })? })
    }

    /// What its device says of itself; a device's name begins with its adapter's.
    pub fn adapter(&self) -> Option<AdapterInfo> {
        adapters().into_iter().find(|adapter| self.device.name().contains(&adapter.name))
    }
}

impl Engine for Wgtune {
    fn name(&self) -> &str {
        self.name
    }

    fn job(&self, work: Work) -> Result<Job, Box<dyn Error>> {
        let device = self.device.clone();
        let inputs: Vec<Tensor> = work.inputs().iter().map(|input| device.tensor(&input.values, &input.shape[..])).collect();
        let causal = ops::Mask { causal: true, ..ops::Mask::default() };
        Ok(match work {
            Work::GptStep => step(device)?,
            Work::AttentionBackward => {
                let leaves: Vec<Tensor> = inputs[..3].iter().map(Tensor::requiring_grad).collect();
                Box::new(move |then| {
                    let output = ops::attention(&leaves[0], &leaves[1], &leaves[2], &causal);
                    let gradients = ops::sum(&ops::mul(&output, &inputs[3])).backward();
                    let gradients = leaves.iter().map(|leaf| gradients.get(leaf).expect("a leaf has a gradient").clone());
                    finish(&device, &[output.detach()].into_iter().chain(gradients).collect::<Vec<_>>(), then)
                })
            }
            _ => Box::new(move |then| {
                let x = &inputs;
                let output = match work {
                    Work::Matmul(_) => ops::matmul(&x[0], &x[1]),
                    Work::Softmax => ops::softmax(&x[0]),
                    Work::LayerNorm => ops::layer_norm(&x[0], &x[1], &x[2], EPSILON as f32),
                    Work::Gelu => ops::gelu(&x[0]),
                    Work::Add => ops::add(&x[0], &x[1]),
                    _ => ops::attention(&x[0], &x[1], &x[2], &causal),
                };
                finish(&device, &[output], then)
            }),
        })
    }
}

/// The outputs are held until they are there: what nobody holds is not computed.
fn finish(device: &Device, outputs: &[Tensor], then: Then) -> Result<Vec<f32>, Box<dyn Error>> {
    if then == Then::Wait {
        device.wait()?;
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for output in outputs {
        all.extend(output.to_vec()?);
    }
    Ok(all)
}

fn step(device: Device) -> Result<Job, Box<dyn Error>> {
    let config = json!({
        "model_type": "llama",
        "vocab_size": gpt::VOCABULARY,
        "hidden_size": gpt::WIDTH,
        "intermediate_size": gpt::INSIDE,
        "num_hidden_layers": gpt::LAYERS,
        "num_attention_heads": gpt::HEADS,
        "max_position_embeddings": gpt::POSITIONS,
        "rms_norm_eps": EPSILON,
        "rope_theta": gpt::BASE,
        "tie_word_embeddings": false,
        "eos_token_id": 0,
    });
    let blueprint = Blueprint::from_json("the peers' GPT".as_ref(), config)?;
    let mut source = |name: &str, shape: &[usize]| Ok(device.tensor(&gpt::weight(name, shape), shape).requiring_grad());
    let decoder = Decoder::build(blueprint, &mut source)?;
    let [ids, targets] = gpt::tokens();
    let positions: Vec<u32> = (0..gpt::BATCH).flat_map(|_| 0..gpt::POSITIONS as u32).collect();
    let rows = Rows { count: gpt::BATCH, ids: &ids, positions: &positions, segments: None };
    let input = decoder.input(&rows, &Forward::default());
    let rows = gpt::BATCH * gpt::POSITIONS;
    let targets = device.tensor_u32(&targets, [rows]);
    let config = AdamWConfig { beta1: gpt::BETAS[0], beta2: gpt::BETAS[1], eps: gpt::ADAM_EPSILON };
    let parameter = |(name, tensor): (String, &Tensor)| Parameter {
        name,
        tensor: tensor.clone(),
        weight_decay: gpt::WEIGHT_DECAY,
        rate: 1.0,
    };
    let parameters = Parameters::gather(decoder.parameters().into_iter().map(parameter));
    let mut optimizer = AdamW::new(config, &parameters);
    Ok(Box::new(move |_| {
        let hidden = decoder.hidden(&input, &Forward::default()).reshape([rows, gpt::WIDTH]);
        let output = ops::linear_cross_entropy(&hidden, decoder.output_weight(), &targets);
        let loss = ops::scale(&output.loss, 1.0 / rows as f32);
        let gradients = parameters.gradients(&loss.backward()).expect("a parameter has a gradient");
        optimizer.step(&parameters, &gradients, gpt::LEARNING_RATE, None);
        let loss = loss.item()?;
        device.wait()?;
        Ok(vec![loss])
    }))
}
