//! candle on the CPU, composed as its own examples do. Its fused softmax and norms have no backward pass, so training uses the ones
//! made of primitives.

use std::error::Error;

use candle_core::{D, Device, IndexOp, Tensor, Var};
use candle_nn::attention::{AttnMask, flash_attn};
use candle_nn::{AdamW, Embedding, Linear, Module, Optimizer, ParamsAdamW, RmsNorm, loss, ops, rotary_emb};

use crate::gpt;
use crate::work::{EPSILON, Engine, Input, Job, Then, Work, positions_first};

pub struct Candle;

impl Engine for Candle {
    fn name(&self) -> &str {
        "candle CPU"
    }

    fn job(&self, work: Work) -> Result<Job, Box<dyn Error>> {
        let tensor = |input: &Input| Tensor::from_slice(&input.values, &input.shape[..], &Device::Cpu);
        let inputs = work.inputs();
        if work == Work::GptStep {
            return step();
        }
        if work == Work::AttentionBackward {
            let inputs = inputs.iter().map(|input| tensor(&input.heads_first())).collect::<Result<Vec<_>, _>>()?;
            let leaves = inputs[..3].iter().map(Var::from_tensor).collect::<Result<Vec<_>, _>>()?;
            let mask = causal_mask(inputs[0].dim(2)?)?;
            return Ok(Box::new(move |then| {
                let output = attention(&leaves[0], &leaves[1], &leaves[2], &mask)?;
                let gradients = (&output * &inputs[3])?.sum_all()?.backward()?;
                let mut outputs = vec![output];
                outputs.extend(leaves.iter().map(|leaf| gradients.get(leaf).expect("a leaf has a gradient").clone()));
                Ok(positions_first(finish(&outputs, then)?))
            }));
        }
        let inputs = inputs.iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(move |then| {
            let x = &inputs;
            let output = match work {
                Work::Matmul(_) => x[0].matmul(&x[1])?,
                Work::Softmax => ops::softmax_last_dim(&x[0])?,
                Work::LayerNorm => ops::layer_norm(&x[0], &x[1], &x[2], EPSILON as f32)?,
                Work::Gelu => x[0].gelu_erf()?,
                Work::Add => (&x[0] + &x[1])?,
                // Its kernel for inference, which keeps positions before heads, and returns heads first.
                _ => {
                    let scale = 1.0 / (x[0].dim(D::Minus1)? as f32).sqrt();
                    let output = flash_attn::<f32>(&x[0], &x[1], &x[2], scale, AttnMask::causal(), None, None)?;
                    return Ok(positions_first(finish(&[output], then)?));
                }
            };
            finish(&[output], then)
        }))
    }
}

/// candle computes at once: there is nothing to wait for.
fn finish(outputs: &[Tensor], then: Then) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut all = Vec::new();
    if then == Then::Read {
        for output in outputs {
            all.extend(output.flatten_all()?.to_vec1::<f32>()?);
        }
    }
    Ok(all)
}

/// [T, T]: 0 where a key may be seen, -inf where not.
fn causal_mask(positions: usize) -> candle_core::Result<Tensor> {
    let hidden = |at: usize| if at % positions > at / positions { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..positions * positions).map(hidden).collect();
    Tensor::from_vec(mask, (positions, positions), &Device::Cpu)
}

/// Of query, key and value [B, H, T, D].
fn attention(query: &Tensor, key: &Tensor, value: &Tensor, mask: &Tensor) -> candle_core::Result<Tensor> {
    let scale = 1.0 / (query.dim(D::Minus1)? as f64).sqrt();
    let scores = (query.matmul(&key.t()?)? * scale)?.broadcast_add(mask)?;
    ops::softmax(&scores, D::Minus1)?.matmul(value)
}

struct Gpt {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
}

struct Block {
    attention_norm: RmsNorm,
    projections: [Linear; 3],
    output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Hands out the parameters, and keeps them for the optimiser.
#[derive(Default)]
struct Parameters(Vec<Var>);

impl Parameters {
    fn get(&mut self, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        let var = Var::from_vec(gpt::weight(name, shape), shape, &Device::Cpu)?;
        let tensor = var.as_tensor().clone();
        self.0.push(var);
        Ok(tensor)
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> candle_core::Result<Linear> {
        Ok(Linear::new(self.get(&format!("{name}.weight"), &[outputs, inputs])?, None))
    }

    fn norm(&mut self, name: &str) -> candle_core::Result<RmsNorm> {
        Ok(RmsNorm::new(self.get(&format!("{name}.weight"), &[gpt::WIDTH])?, EPSILON))
    }
}

impl Gpt {
    fn new(parameters: &mut Parameters) -> candle_core::Result<Gpt> {
        let table = [gpt::VOCABULARY, gpt::WIDTH];
        let [cos, sin] = gpt::rotations().map(|table| Tensor::from_vec(table, (gpt::POSITIONS, gpt::HEAD_DIM), &Device::Cpu));
        // candle's rotation takes the first half of each row, the second being the same.
        let half = |table: Tensor| table.i((.., ..gpt::HEAD_DIM / 2))?.contiguous();
        Ok(Gpt {
            embedding: Embedding::new(parameters.get("model.embed_tokens.weight", &table)?, gpt::WIDTH),
            blocks: (0..gpt::LAYERS).map(|layer| Block::new(layer, parameters)).collect::<candle_core::Result<_>>()?,
            norm: parameters.norm("model.norm")?,
            head: parameters.linear("lm_head", gpt::VOCABULARY, gpt::WIDTH)?,
            cos: half(cos?)?,
            sin: half(sin?)?,
            mask: causal_mask(gpt::POSITIONS)?,
        })
    }

    /// Logits [B T, V].
    fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = self.embedding.forward(ids)?;
        for block in &self.blocks {
            x = block.forward(&x, self)?;
        }
        self.head.forward(&self.norm.forward_diff(&x)?)?.flatten(0, 1)
    }
}

impl Block {
    fn new(layer: usize, parameters: &mut Parameters) -> candle_core::Result<Block> {
        let path = format!("model.layers.{layer}");
        let attention = |name: &str| format!("{path}.self_attn.{name}");
        let feed_forward = |name: &str| format!("{path}.mlp.{name}");
        let width = gpt::WIDTH;
        Ok(Block {
            attention_norm: parameters.norm(&format!("{path}.input_layernorm"))?,
            projections: [
                parameters.linear(&attention("q_proj"), width, width)?,
                parameters.linear(&attention("k_proj"), width, width)?,
                parameters.linear(&attention("v_proj"), width, width)?,
            ],
            output: parameters.linear(&attention("o_proj"), width, width)?,
            feed_forward_norm: parameters.norm(&format!("{path}.post_attention_layernorm"))?,
            gate: parameters.linear(&feed_forward("gate_proj"), gpt::INSIDE, width)?,
            up: parameters.linear(&feed_forward("up_proj"), gpt::INSIDE, width)?,
            down: parameters.linear(&feed_forward("down_proj"), width, gpt::INSIDE)?,
        })
    }

    fn forward(&self, x: &Tensor, gpt: &Gpt) -> candle_core::Result<Tensor> {
        let (batch, positions, width) = x.dims3()?;
        let normed = self.attention_norm.forward_diff(x)?;
        let heads = |projection: &Linear| {
            let y = projection.forward(&normed)?.reshape((batch, positions, gpt::HEADS, gpt::HEAD_DIM))?;
            y.transpose(1, 2)?.contiguous()
        };
        let [query, key, value] = &self.projections;
        let query = rotary_emb::rope_slow(&heads(query)?, &gpt.cos, &gpt.sin)?;
        let key = rotary_emb::rope_slow(&heads(key)?, &gpt.cos, &gpt.sin)?;
        let attended = attention(&query, &key, &heads(value)?, &gpt.mask)?;
        let x = (x + self.output.forward(&attended.transpose(1, 2)?.reshape((batch, positions, width))?)?)?;
        let normed = self.feed_forward_norm.forward_diff(&x)?;
        let inside = (ops::silu(&self.gate.forward(&normed)?)? * self.up.forward(&normed)?)?;
        &x + self.down.forward(&inside)?
    }
}

fn step() -> Result<Job, Box<dyn Error>> {
    let mut parameters = Parameters::default();
    let model = Gpt::new(&mut parameters)?;
    let [ids, targets] = gpt::tokens();
    let ids = Tensor::from_vec(ids, (gpt::BATCH, gpt::POSITIONS), &Device::Cpu)?;
    let targets = Tensor::from_vec(targets, gpt::BATCH * gpt::POSITIONS, &Device::Cpu)?;
    let config = ParamsAdamW {
        lr: gpt::LEARNING_RATE,
        beta1: gpt::BETAS[0],
        beta2: gpt::BETAS[1],
        eps: gpt::ADAM_EPSILON,
        weight_decay: gpt::WEIGHT_DECAY,
    };
    let mut optimizer = AdamW::new(parameters.0, config)?;
    Ok(Box::new(move |_| {
        let loss = loss::cross_entropy(&model.forward(&ids)?, &targets)?;
        optimizer.backward_step(&loss)?;
        Ok(vec![loss.to_scalar::<f32>()?])
    }))
}
