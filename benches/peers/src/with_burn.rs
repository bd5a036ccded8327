//! burn, on the CPU (its Flex backend) or a GPU (its wgpu backend, with fusion and autotuning as they come).

use std::error::Error;

use burn::module::{Module, Param};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, DeviceKind, Int, Tensor, TensorData, activation, module};
use wgtune_engine::device::AdapterInfo;

use crate::gpt;
use crate::work::{EPSILON, Engine, Input, Job, Then, Work, positions_first};

pub struct Burn {
    name: &'static str,
    device: Device,
}

impl Burn {
    pub fn cpu() -> Burn {
        Burn { name: "burn CPU", device: Device::flex() }
    }

    /// On the first adapter of this one's kind, which must be the same.
    pub fn gpu(adapter: Option<AdapterInfo>) -> Result<Burn, Box<dyn Error>> {
        let adapter = adapter.ok_or("wgtune's device has no adapter")?;
        let kind = match adapter.device_type {
            _ if adapter.software => DeviceKind::Cpu,
            "discrete" => DeviceKind::DiscreteGpu(0),
            "integrated" => DeviceKind::IntegratedGpu(0),
            "virtual" => DeviceKind::VirtualGpu(0),
            _ => DeviceKind::DefaultDevice,
        };
        Ok(Burn { name: "burn GPU", device: Device::wgpu(kind) })
    }
}

impl Engine for Burn {
    fn name(&self) -> &str {
        self.name
    }

    fn job(&self, work: Work) -> Result<Job, Box<dyn Error>> {
        let device = self.device.clone();
        let inputs = work.inputs();
        Ok(match work {
            Work::Attention => {
                let [query, key, value] = [0, 1, 2].map(|at| tensor::<4>(&inputs[at].heads_first(), &device));
                Box::new(move |then| {
                    let output = attention(query.clone(), key.clone(), value.clone());
                    Ok(positions_first(finish(&device, vec![output], then)?))
                })
            }
            Work::AttentionBackward => {
                let device = device.autodiff();
                let [query, key, value] = [0, 1, 2].map(|at| tensor::<4>(&inputs[at].heads_first(), &device).require_grad());
                let weight = tensor::<4>(&inputs[3].heads_first(), &device);
                Box::new(move |then| {
                    let output = attention(query.clone(), key.clone(), value.clone());
                    let gradients = (output.clone() * weight.clone()).sum().backward();
                    let leaves = [&query, &key, &value].map(|leaf| leaf.grad(&gradients).expect("a leaf has a gradient"));
                    let outputs = [output.inner()].into_iter().chain(leaves).collect();
                    Ok(positions_first(finish(&device, outputs, then)?))
                })
            }
            Work::GptStep => step(device)?,
            Work::LayerNorm => {
                let x = tensor::<2>(&inputs[0], &device);
                let [weight, bias] = [1, 2].map(|at| tensor::<1>(&inputs[at], &device));
                Box::new(move |then| {
                    let output = module::layer_norm(x.clone(), weight.clone(), Some(bias.clone()), EPSILON);
                    finish(&device, vec![output], then)
                })
            }
            _ => {
                let x: Vec<Tensor<2>> = inputs.iter().map(|input| tensor(input, &device)).collect();
                Box::new(move |then| {
                    let output = match work {
                        Work::Matmul(_) => x[0].clone().matmul(x[1].clone()),
                        Work::Softmax => activation::softmax(x[0].clone(), 1),
                        Work::Gelu => activation::gelu(x[0].clone()),
                        _ => x[0].clone() + x[1].clone(),
                    };
                    finish(&device, vec![output], then)
                })
            }
        })
    }
}

fn tensor<const RANK: usize>(input: &Input, device: &Device) -> Tensor<RANK> {
    Tensor::from_data(TensorData::new(input.values.clone(), input.shape.clone()), device)
}

/// Causal, of query, key and value [B, H, T, D].
fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    module::attention(query, key, value, None, None, AttentionModuleOptions { is_causal: true, ..Default::default() })
}

/// The outputs are held until the device has done all it was given.
fn finish<const RANK: usize>(device: &Device, outputs: Vec<Tensor<RANK>>, then: Then) -> Result<Vec<f32>, Box<dyn Error>> {
    if then == Then::Wait {
        device.sync().map_err(|error| format!("{error:?}"))?;
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for output in outputs {
        all.extend(output.try_into_vec_as::<f32>().map_err(|error| format!("{error:?}"))?);
    }
    Ok(all)
}

#[derive(Module, Debug)]
struct Gpt {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

fn linear(name: &str, outputs: usize, inputs: usize, device: &Device) -> Linear {
    let values = gpt::weight(&format!("{name}.weight"), &[outputs, inputs]);
    let weight = Tensor::<2>::from_data(TensorData::new(values, [outputs, inputs]), device);
    let mut linear = LinearConfig::new(inputs, outputs).with_bias(false).init(device);
    // burn keeps [inputs, outputs]; by way of the host, so that it lies so in memory.
    linear.weight = Param::from_data(weight.transpose().into_data(), device);
    linear
}

fn norm(device: &Device) -> RmsNorm {
    RmsNormConfig::new(gpt::WIDTH).with_epsilon(EPSILON).init(device)
}

impl Gpt {
    fn new(device: &Device) -> Gpt {
        let table = [gpt::VOCABULARY, gpt::WIDTH];
        let mut embedding = EmbeddingConfig::new(gpt::VOCABULARY, gpt::WIDTH).init(device);
        embedding.weight = Param::from_data(TensorData::new(gpt::weight("model.embed_tokens.weight", &table), table), device);
        Gpt {
            embedding,
            blocks: (0..gpt::LAYERS).map(|layer| Block::new(layer, device)).collect(),
            norm: norm(device),
            head: linear("lm_head", gpt::VOCABULARY, gpt::WIDTH, device),
        }
    }

    /// Logits [B T, V].
    fn forward(&self, ids: Tensor<2, Int>, rotation: &Rotation) -> Tensor<2> {
        let mut x = self.embedding.forward(ids);
        for block in &self.blocks {
            x = block.forward(x, rotation);
        }
        self.head.forward(self.norm.forward(x)).flatten(0, 1)
    }
}

impl Block {
    fn new(layer: usize, device: &Device) -> Block {
        let path = format!("model.layers.{layer}");
        let square = |name: &str| linear(&format!("{path}.self_attn.{name}"), gpt::WIDTH, gpt::WIDTH, device);
        Block {
            attention_norm: norm(device),
            query: square("q_proj"),
            key: square("k_proj"),
            value: square("v_proj"),
            output: square("o_proj"),
            feed_forward_norm: norm(device),
            gate: linear(&format!("{path}.mlp.gate_proj"), gpt::INSIDE, gpt::WIDTH, device),
            up: linear(&format!("{path}.mlp.up_proj"), gpt::INSIDE, gpt::WIDTH, device),
            down: linear(&format!("{path}.mlp.down_proj"), gpt::WIDTH, gpt::INSIDE, device),
        }
    }

    fn forward(&self, x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
        let [batch, positions, width] = x.dims();
        let normed = self.attention_norm.forward(x.clone());
        let heads = |projection: &Linear| {
            projection.forward(normed.clone()).reshape([batch, positions, gpt::HEADS, gpt::HEAD_DIM]).swap_dims(1, 2)
        };
        let (query, key) = (rotation.apply(heads(&self.query)), rotation.apply(heads(&self.key)));
        let attended = attention(query, key, heads(&self.value)).swap_dims(1, 2).reshape([batch, positions, width]);
        let x = x + self.output.forward(attended);
        let normed = self.feed_forward_norm.forward(x.clone());
        let inside = activation::silu(self.gate.forward(normed.clone())) * self.up.forward(normed);
        x + self.down.forward(inside)
    }
}

/// Cosine and sine of rotary positions, [1, 1, T, D].
struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    fn new(device: &Device) -> Rotation {
        let shape = [1, 1, gpt::POSITIONS, gpt::HEAD_DIM];
        let [cos, sin] = gpt::rotations().map(|table| Tensor::from_data(TensorData::new(table, shape), device));
        Rotation { cos, sin }
    }

    /// x cos + rotate_half(x) sin: burn's own module turns neighbouring dimensions, and Llama's layout d and d + D/2.
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let halves = x.clone().chunk(2, 3);
        let turned = Tensor::cat(vec![halves[1].clone().neg(), halves[0].clone()], 3);
        x * self.cos.clone() + turned * self.sin.clone()
    }
}

fn step(device: Device) -> Result<Job, Box<dyn Error>> {
    let device = device.autodiff();
    let mut model = Some(Gpt::new(&device));
    let rotation = Rotation::new(&device);
    let [ids, targets] = gpt::tokens().map(|tokens| tokens.into_iter().map(|token| token as i32).collect::<Vec<i32>>());
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [gpt::BATCH, gpt::POSITIONS]), &device);
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [gpt::BATCH * gpt::POSITIONS]), &device);
    let cross_entropy: CrossEntropyLoss = CrossEntropyLossConfig::new().init(&device);
    let mut optimizer = AdamWConfig::new()
        .with_beta_1(gpt::BETAS[0] as f32)
        .with_beta_2(gpt::BETAS[1] as f32)
        .with_epsilon(gpt::ADAM_EPSILON as f32)
        .with_weight_decay(gpt::WEIGHT_DECAY as f32)
        .init();
    Ok(Box::new(move |_| {
        let before = model.take().expect("the model is put back after every step");
        let loss = cross_entropy.forward(before.forward(ids.clone(), &rotation), targets.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &before);
        model = Some(optimizer.step(gpt::LEARNING_RATE, before, gradients));
        let loss = finish(&device, vec![loss.inner()], Then::Read)?;
        finish::<1>(&device, vec![], Then::Wait)?;
        Ok(loss)
    }))
}
